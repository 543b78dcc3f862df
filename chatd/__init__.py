"""The front door: takes connections, logs devices in, and moves messages between them and the shards."""
