"""`python -m fedsplit`, as `fedsplit`."""

import sys

from fedsplit.cli.start import run

if __name__ == "__main__":
    sys.exit(run())
