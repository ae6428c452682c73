"""A process that imports once, and forks itself for each call: what kills a call kills only it."""

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Lock, Thread

from fedsplit.processes.child import ChildProcess, received
from fedsplit.processes.forking import Call, Ended, Signal, serve

_GRACE_S = 5.0
"""Seconds in which it ends its forks; while it still imports it does nothing else."""


class Fork:
    """A process that was forked for one call."""

    def __init__(self, number: int, forker: "Forker") -> None:
        self.pid: Future[int] = Future()
        self.ended: Future[Ended] = Future()
        self.number, self._forker = number, forker

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._forker.tell(Signal(self.number, number))


class Forker:
    """The process that forks; it ends with this one, and all its forks with it.

    Args:
        prepare: function of a module that it calls before the first fork, to import what calls need.
        what: it does, in errors, such as "runs jobs".
        environment: its variables; None: those of this process.
    """

    def __init__(
        self, prepare: Callable[[], object], what: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._what, self._lock = what, Lock()
        self._forks: dict[int, Fork] = {}
        self._calls = 0
        self.alive = True
        """Whether it still forks."""
        self._child = ChildProcess(serve, os.environ if environment is None else environment)
        self.tell(prepare)
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, call: Callable[[], object], log: Path, errors: Path | None = None) -> Fork:
        """Fork a process for a call.

        Args:
            call: function of a module, or a `functools.partial` of one; what it returns is told.
            log: file to which is added what it prints.
            errors: file for its standard error; None: that for all.
        """
        with self._lock:
            self._calls += 1
            fork = Fork(self._calls, self)
            self._forks[self._calls] = fork
        self.tell(Call(fork.number, call, str(log), str(errors or log), os.getcwd()))
        if not self.alive:
            self._lose_all()
        return fork

    def tell(self, message: object) -> None:
        """Send a message, unless it has ended."""
        with self._lock, suppress(OSError):
            self._child.requests.send(message)

    def close(self) -> None:
        """End it, and all its forks."""
        self._child.requests.close()
        with suppress(TimeoutExpired):
            self._child.process.wait(_GRACE_S)
        self._child.kill()
        self._listener.join()
        self._child.close()

    def _listen(self) -> None:
        for number, told in received(self._child.answers):
            if isinstance(told, Ended):
                self._forks.pop(number).ended.set_result(told)
            else:
                self._forks[number].pid.set_result(told)
        self.alive = False
        self._lose_all()

    def _lose_all(self) -> None:
        with self._lock:
            lost, self._forks = self._forks, {}
        for fork in lost.values():
            fork.pid.cancel()
            fork.ended.set_result(Ended(None, f"the process that {self._what} was killed: out of memory?"))
