"""What runs over the four stages: cycles and refreshes."""
