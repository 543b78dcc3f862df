"""The HTTP port: a small API for back ends, health and metrics, and the WebSocket beside them on the same port."""
