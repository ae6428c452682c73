"""A client's end of the network."""
