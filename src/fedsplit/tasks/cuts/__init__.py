"""The table of what each cut of a model costs, and its figure."""
