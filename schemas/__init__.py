"""The contract: wire events, names, durable shapes. Imports msgspec and the standard library alone."""
