"""Optimizers and learning-rate schedules, as functions of explicit state."""
