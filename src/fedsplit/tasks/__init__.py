"""What `main.py` can be asked to do."""
