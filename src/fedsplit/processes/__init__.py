"""Processes beside this one: what ends them, and how they are asked."""
