"""Processes beside this one: fresh ones, and one that forks itself for each call."""
