"""Parties of split learning: clients, servers, and what passes between them."""
