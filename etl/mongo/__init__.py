"""Stage 1, read: the documents of MongoDB."""
