"""Commands of `main.py` that are killed, stopped and waited for; they start at once."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.warm import MARKS, end_warm_processes, start_warm_processes, warm_forker

MARK = "FEDSPLIT_COMMAND"
"""Variable in the environment of all that a command starts."""


class Command:
    """A running `python main.py` with these arguments.

    Args:
        arguments: of it.
        log: file that its output is added to.
        prepare: is called in the process before anything else; a function of a module.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, prepare: Callable[[], object] | None = None
    ) -> None:
        self._fork = warm_forker().start(partial(_perform, list(arguments), log, prepare), log)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._fork.pid.result()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; that of a signal is negative."""
        return self._fork.end.result().code if self._fork.end.done() else None

    def wait(self, seconds: float) -> int | None:
        """Its exit code, once it has ended; None after so many seconds without."""
        with suppress(TimeoutError):
            self._fork.end.result(seconds)
        return self.exit_code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        self._fork.send(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self._fork.end.result()


def _perform(arguments: Sequence[str], log: Path, prepare: Callable[[], object] | None) -> None:
    os.environ[MARK] = str(log)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from fedsplit.cli.run import main  # noqa: PLC0415

    sys.argv[1:] = arguments
    MARKS.add(os.open(_mark(log), os.O_CREAT | os.O_RDONLY))
    start_warm_processes()
    if prepare is not None:
        prepare()
    try:
        sys.exit(main())
    finally:
        end_warm_processes()


def _mark(log: Path) -> str:
    """The file that all forks of a command with this log have open."""
    return f"{log}.mark"


def started_by(log: Path) -> list[int]:
    """Processes that a command with this log started, directly or not, and that still run."""
    wanted, mark, found = f"{MARK}={log}".encode(), _mark(log), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            files = [os.readlink(each) for each in (folder / "fd").iterdir()]
        except OSError:  # gone, or not ours
            continue
        if wanted in variables or mark in files:
            found.append(int(folder.name))
    return found
