"""Where a model can be cut, and the cut itself."""
