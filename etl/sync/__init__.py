"""The runs over the four stages: cycles, refreshes, followers."""
