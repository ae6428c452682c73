"""Backends of deployed client models, one file each."""
