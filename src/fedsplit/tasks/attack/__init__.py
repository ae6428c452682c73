"""Attacks on what clients send, each in a file of its own; what they find out, as tables and pictures."""
