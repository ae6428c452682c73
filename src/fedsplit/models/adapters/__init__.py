"""Small parameters that learn beside a frozen model."""
