"""Defences of clients against servers, the noise that they draw, and what may be claimed of it."""
