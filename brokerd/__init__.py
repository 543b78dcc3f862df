"""The back room: takes posts from the shards, keeps them in the sent_queue, hands them to the right node."""
