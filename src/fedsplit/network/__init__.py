"""A simulated network: what a round would take on devices and links of given speeds."""
