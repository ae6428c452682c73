"""Experiments in federated split learning: accuracy against bytes, seconds and client memory."""

__version__ = "0.1.0"
