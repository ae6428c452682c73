"""Where commands begin: an interruption is told in one line, also while the first second goes to imports."""

import sys

SUBCOMMANDS = ("ls", "show", "copy")
"""First words of command lines that look at what is there; all others run something."""


def run() -> int:
    """Run experiments, or look at them: `python main.py`, `fedsplit`, `python -m fedsplit`; the exit code."""
    try:
        if sys.argv[1:2] and sys.argv[1] in SUBCOMMANDS:
            from fedsplit.cli.subcommands import main  # noqa: PLC0415
        else:
            from fedsplit.cli.run import main  # noqa: PLC0415
        from fedsplit.machine.terminal import with_tolerant_output  # noqa: PLC0415
    except KeyboardInterrupt:
        return _report_interrupt()
    return with_tolerant_output(main)


def plot() -> int:
    """Draw figures and make tables: `python plot_results.py`, `fedsplit-plot`; the exit code."""
    try:
        from fedsplit.cli.plot import main  # noqa: PLC0415
        from fedsplit.machine.terminal import with_tolerant_output  # noqa: PLC0415
    except KeyboardInterrupt:
        return _report_interrupt()
    return with_tolerant_output(main)


def _report_interrupt() -> int:
    print("interrupted", file=sys.stderr)
    return 130
