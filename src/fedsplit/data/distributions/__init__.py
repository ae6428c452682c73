"""Ways to distribute a dataset over clients, one file each."""
