"""A synthetic evaluation for the demo: events alone, no broker, no disk."""
