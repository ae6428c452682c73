"""Runs experiments: `python main.py --help`."""

import sys

from fedsplit.cli.start import run

if __name__ == "__main__":
    sys.exit(run())
