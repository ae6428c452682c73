"""Training a run: its rounds, when it stops, how it goes on after a kill, and what it leaves behind."""
