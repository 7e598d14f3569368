"""Studies of how to decode: searches with language models, and their weights."""
