"""Reports of runs that are read back: selection, figures, tables, and a page of them all."""
