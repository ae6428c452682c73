"""Codecs for what crosses the wire."""
