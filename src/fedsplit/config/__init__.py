"""Configurations, from a command line to objects; the only room that knows Hydra, beside sweeps."""
