"""The client: one player's virtual adapter, and the session that carries its frames to the relay."""
