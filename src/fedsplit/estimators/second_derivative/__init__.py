"""The gradient of an input gradient's squared error, by explicit sweeps over a model's operations."""
