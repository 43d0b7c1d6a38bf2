"""What operators see: log lines, metrics, and the server that shows them."""
