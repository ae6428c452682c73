"""Clients of one run computed by many workers: who computes whom, and answers in the order of one process."""
