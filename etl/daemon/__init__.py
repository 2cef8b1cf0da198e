"""The daemon: what runs when."""
