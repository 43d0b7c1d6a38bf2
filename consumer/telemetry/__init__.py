"""What operators see: log lines (metrics come later)."""
