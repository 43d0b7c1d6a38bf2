"""evalsink: a stream of evaluation events in, finished and verifiable evaluation runs out."""
