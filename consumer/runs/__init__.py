"""Runs on their way: counting, spool, checkpoint, verdict, close-out. Knows nothing of Kafka clients."""
