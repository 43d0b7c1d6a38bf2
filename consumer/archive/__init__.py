"""The archive: closed runs on their way to the Hugging Face Hub, off the poll path."""
