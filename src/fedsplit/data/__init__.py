"""Datasets, their distribution over clients, and batches."""
