"""Networks that turn pixels and words into vectors."""
