"""Tasks that `main.py` can do."""
