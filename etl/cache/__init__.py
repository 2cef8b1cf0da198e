"""Stage 3, write: the contract keys of Redis."""
