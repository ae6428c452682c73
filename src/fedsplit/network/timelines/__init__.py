"""Who waits for whom in a round, one file an algorithm."""
