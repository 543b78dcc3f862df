"""The wire of chatd: bytes, values and tables. Nothing here knows a socket, a clock or a logger (but for client.py)."""
