"""Client models that compute with rounded values."""
