"""Objectives, which a run minimises and measures."""
