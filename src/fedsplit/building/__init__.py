"""Builds what a run is made of, from its configuration."""
