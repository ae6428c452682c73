"""Certificates for running over a network."""
