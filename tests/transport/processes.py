"""Commands of `main.py`, and other processes, that start at once: they have imported everything."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "fedsplit.cli.run",
        "fedsplit.training.experiment",
        "fedsplit.tasks.spawned",
        "fedsplit.transport.grpc.client.client",
        "fedsplit.transport.grpc.server.transport",
        "torch._dynamo",
        "sklearn.datasets",
    ]
)
MARK = "FEDSPLIT_COMMAND"
"""Variable in the environment of all that a command starts."""


class Command:
    """A running `python main.py` with these arguments.

    Args:
        arguments: of it.
        log: file that its output is added to.
        prepare: is called in the process before anything else; not a lambda.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, prepare: Callable[[], object] | None = None
    ) -> None:
        self._process = forked(_perform, list(arguments), log, prepare)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; that of a signal is negative."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int | None:
        """Its exit code, once it has ended; None after so many seconds without."""
        self._process.join(seconds)
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self._process.join()


def forked(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that calls a function of a module; it gets ends of `pipe()` as arguments."""
    _start_the_one_that_forks()
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def pipe() -> tuple[Connection, Connection]:
    """The ends to read from and to write to; `forked` hands them over."""
    return _CONTEXT.Pipe(duplex=False)


def _start_the_one_that_forks() -> None:
    before = os.environ.get("PYTHONPATH")
    root = Path(__file__).parents[2]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "src"), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _perform(arguments: Sequence[str], log: Path, prepare: Callable[[], object] | None) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ[MARK] = str(log)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from fedsplit.cli.run import main  # noqa: PLC0415  (imported already, where this was forked)

    sys.argv[1:] = arguments
    if prepare is not None:
        prepare()
    code = main()
    sys.stdout.flush()
    sys.exit(code)


def started_by(log: Path) -> list[int]:
    """Processes that a command with this log started, directly or not, and that still run."""
    wanted, found = f"{MARK}={log}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or not ours
            continue
        if wanted in variables:
            found.append(int(folder.name))
    return found
