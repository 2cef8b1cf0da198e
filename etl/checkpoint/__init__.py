"""Stage 4, remember: the checkpoint and what moves with it."""
