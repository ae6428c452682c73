"""What is read back from runs: selection, figures, tables, and a page of them all."""
