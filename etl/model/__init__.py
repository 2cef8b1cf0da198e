"""Values that pass between the rooms: no I/O."""
