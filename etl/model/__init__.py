"""Values that pass between the packages; no I/O."""
