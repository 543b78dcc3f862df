"""The bench: a black box that knows the wire and nothing else of the server."""
