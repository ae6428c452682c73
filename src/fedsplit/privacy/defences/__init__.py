"""Defences of clients, one file each."""
