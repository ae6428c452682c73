"""Draws figures, and makes tables, of what runs left behind: `python plot_results.py --help`."""

import sys

from fedsplit.cli.start import plot

if __name__ == "__main__":
    sys.exit(plot())
