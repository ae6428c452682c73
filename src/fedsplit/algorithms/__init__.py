"""The algorithms, one file each: mathematics only."""
