"""The server's end of the network."""
