"""Gradient estimators and their alignment."""
