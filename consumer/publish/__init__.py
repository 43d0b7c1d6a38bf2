"""Existing evaluation output into events: find runs, read rows, arrange and send."""
