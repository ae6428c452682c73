"""What runs at a client and at a server, and what passes between them."""
