"""The embedded broker, for the demo and smoke tests."""
