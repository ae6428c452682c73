"""Runs experiments: `python main.py --help`."""

import sys

try:
    from fedsplit.cli.start import run
except ModuleNotFoundError as error:
    if error.name != "fedsplit":
        raise
    known = "`make run` sets up .venv with it, and `source .venv/bin/activate` takes that Python"
    print(f"error: {sys.executable} has no fedsplit: {known}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(run())
