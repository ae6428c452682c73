"""What a run minimises and measures."""
