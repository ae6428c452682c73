"""A fresh Python process that runs one function of this package, and the pipes between both.

`python -m fedsplit.processes.child` receives the function first. Messages are objects as `multiprocessing`
sends them; nobody else can write to these pipes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import IO, Any, Self, TypeAlias

from fedsplit.errors import RunFailed, UserError

_INTERVAL_S = 0.5


def end_with_parent() -> None:
    """End this process at once when the parent process has ended, even if it could not say so."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os._exit(0)


Serve: TypeAlias = Callable[[Connection, Connection], None]
"""Function of a module that such a process runs: it receives from the first and sends to the second."""


class ChildProcess:
    """The process, seen from the one that started it; it finds modules where this one does, and ends with it.

    Args:
        stderr: file for its standard error, and for what it prints; None: that of this process.
    """

    def __init__(self, serve: Serve, environment: Mapping[str, str], stderr: IO[str] | None = None) -> None:
        places = os.pathsep.join(place or os.getcwd() for place in sys.path)
        requests, self.requests = Pipe(duplex=False)
        self.answers, answers = Pipe(duplex=False)
        with requests, answers:
            self.process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=requests.fileno(),
                stdout=answers.fileno(),
                stderr=stderr,
                env={**environment, "PYTHONPATH": places},
                start_new_session=True,  # Ctrl-C is for who started it: with that, this ends
            )
        self.requests.send(serve)

    def kill(self) -> None:
        """Kill it, and all that it forked."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Kill it, and close the pipes."""
        self.kill()
        self.requests.close()
        self.answers.close()


def receive(requests: Connection) -> Iterator[Any]:
    """Receive messages until whoever sends them has closed their end."""
    while True:
        try:
            yield requests.recv()
        except (EOFError, OSError):
            return


def main() -> int:
    """Run the function that is received first; the exit code."""
    requests, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # printed text must not mix with answers
    end_with_parent()
    try:
        serve: Serve = requests.recv()
        serve(requests, answers)
    except (UserError, RunFailed) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes time, and nobody needs it


class AnsweringProcess:
    """A fresh process that answers each question once, from entering to leaving.

    Args:
        serve: function that the process runs; questions and answers are dictionaries.
        what: purpose of the process, in errors.
    """

    def __init__(self, serve: Serve, what: str, threads: int) -> None:
        self._serve, self._what, self._threads = serve, what, threads

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        self._child = ChildProcess(self._serve, os.environ | limits, self._said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close()
        self._said.close()

    def ask(self, **what: Any) -> dict[str, Any]:
        """Ask the process for an answer; `RunFailed`, which says why, where it ended."""
        try:
            self._child.requests.send(what)
            answer: dict[str, Any] = self._child.answers.recv()
        except (EOFError, OSError) as error:
            self._child.process.wait()
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            reason = lines[-1] if lines else "it was killed: out of memory?"
            raise RunFailed(f"the process of {self._what} ended: {reason}") from error
        return answer
