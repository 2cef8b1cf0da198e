"""Stage 2, transform: raw BSON documents become results; pure."""
