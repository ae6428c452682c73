"""State as plain trees of tensors, and weights as they travel."""
