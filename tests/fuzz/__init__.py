"""Whatever bytes come, no reader raises what it does not promise, and no path leaves the folder: `python -m tests.fuzz`."""
