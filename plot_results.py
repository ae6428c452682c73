"""Draws figures, and makes tables, of what runs left behind: `python plot_results.py --help`."""

import sys

import main  # noqa: F401  (comes first: it ends a Python that lacks the package, and says where it is)
from fedsplit.cli.start import plot

if __name__ == "__main__":
    sys.exit(plot())
