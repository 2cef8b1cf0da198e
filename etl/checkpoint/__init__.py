"""Stage 4: the checkpoint, and the state that moves with it."""
