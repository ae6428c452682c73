"""A process that imports once, and forks itself for each call: what kills a call kills only it."""

import faulthandler
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Lock, Thread

from fedsplit.errors import RunFailed, UserError
from fedsplit.processes.child import ChildProcess, end_with_parent, receive

PACKAGES = ("fedsplit", "torch", "torchvision", "scipy", "numpy", "zstandard", "transformers", "peft")
"""Packages that the forker imports itself once a fork has needed them, so that the next fork has them."""
_LONGEST = 2000
"""Most characters of an error's text."""


@dataclass(frozen=True)
class Call:
    """Asks for a fork.

    Args:
        log: file to which is added what it prints.
        errors: file to which its standard error is added.
        here: directory that it stands in; modules may be there.
    """

    number: int
    function: Callable[[], object]
    log: str
    errors: str
    here: str


@dataclass(frozen=True)
class Signal:
    """Asks for a signal to the fork of a call."""

    number: int
    signal: signal.Signals


@dataclass(frozen=True)
class ForkEnd:
    """End of a fork: its exit code, error and value.

    Args:
        code: exit code; negative: of the signal that killed it; None: what forks is gone, and so is this.
        error: why it failed, in one line; None where it did not.
    """

    code: int | None
    error: str | None
    value: object = None


def import_all(modules: Iterable[str]) -> None:
    """Import modules by name, as far as they can be: whoever needs one says what is wrong with it."""
    for module in modules:
        with suppress(Exception):
            if module == "torchvision":
                from fedsplit.machine.torchvision_operators import torchvision  # noqa: PLC0415  (imports torch)

                torchvision()  # whose import may need help
            import_module(module)


def serve(requests: Connection, answers: Connection) -> None:
    """Fork and tell, until nobody asks any more."""
    prepare: Callable[[], object] = requests.recv()
    prepare()
    running: dict[Connection, tuple[Call, int]] = {}
    while True:
        for ready in wait([requests, *running]):
            if ready is not requests:
                assert isinstance(ready, Connection)
                call, pid = running.pop(ready)
                imported, error, value = _last_words(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                answers.send((call.number, ForkEnd(code, _failure(call, code, error), value)))
                import_all(imported)
                continue
            try:
                request = requests.recv()
            except EOFError:
                for _, pid in running.values():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return
            if isinstance(request, Call):
                telling, pid = _start_fork(request, [requests, answers, *running])
                running[telling] = request, pid
                answers.send((request.number, pid))
            else:
                for call, pid in running.values():
                    if call.number == request.number:
                        os.kill(pid, request.signal)


def _last_words(fork: Connection) -> tuple[list[str], str | None, object]:
    """Report of a fork at its end: modules it imported, its error, its value."""
    with fork:
        try:
            report: tuple[list[str], str | None, object] = fork.recv()
        except (EOFError, OSError):
            return [], None, None
        return report


def _failure(call: Call, code: int, error: str | None) -> str | None:
    if code >= 0:
        return (error or f"ended with exit code {code}") if code else None
    why = ": out of memory?" if -code == signal.SIGKILL else f"; see {call.errors}"
    return f"killed by {signal.Signals(-code).name}{why}"


def _start_fork(call: Call, of_parent: list[Connection]) -> tuple[Connection, int]:
    """Start a fork: the pipe of its last words, which its end closes too, and its process."""
    heard, telling = Pipe(duplex=False)
    gc.freeze()  # a fork that looked for garbage among all that was imported would get a copy of it
    pid = os.fork()
    if pid == 0:
        for each in (heard, *of_parent):
            each.close()
        os._exit(_run_fork(call, telling))
    telling.close()
    return heard, pid


def _run_fork(call: Call, telling: Connection) -> int:
    """Run a fork's call until it ends; return its exit code."""
    end_with_parent()
    faulthandler.enable()
    found = set(sys.modules)
    for stream, path in ((1, call.log), (2, call.errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, stream)
        os.close(file)
    code, error, value = 0, None, None
    try:
        os.chdir(call.here)
        if call.here not in sys.path:
            sys.path.append(call.here)
        value = call.function()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (UserError, RunFailed) as failed:
        code, error = failed.exit_code, str(failed)
        print(error, file=sys.stderr)
    except BaseException as failed:
        code, error = 1, "".join(traceback.format_exception_only(failed))
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    imported = [name for name in sys.modules if name not in found and name.partition(".")[0] in PACKAGES]
    telling.send((imported, error and error.strip().rpartition("\n")[2][:_LONGEST], value))
    return code


_GRACE_S = 5.0
"""Seconds in which it ends its forks; while it still imports it does nothing else."""


class Fork:
    """A process that was forked for one call."""

    def __init__(self, number: int, forker: "Forker") -> None:
        self.pid: Future[int] = Future()
        self.end: Future[ForkEnd] = Future()
        self.number, self._forker = number, forker

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._forker.tell(Signal(self.number, number))


class Forker:
    """The process that forks; it ends with this one, and all its forks with it.

    Args:
        prepare: function of a module that it calls before the first fork, to import what calls need.
        what: purpose of the forks in errors, such as "runs jobs".
        environment: environment variables; None: those of this process.
    """

    def __init__(
        self, prepare: Callable[[], object], what: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._what, self._lock = what, Lock()
        self._forks: dict[int, Fork] = {}
        self._calls = 0
        self.alive = True
        """True as long as its process runs and forks."""
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
            self._lose_forks()
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
        for number, message in receive(self._child.answers):
            if isinstance(message, ForkEnd):
                self._forks.pop(number).end.set_result(message)
            else:
                self._forks[number].pid.set_result(message)
        self.alive = False
        self._lose_forks()

    def _lose_forks(self) -> None:
        with self._lock:
            lost, self._forks = self._forks, {}
        for fork in lost.values():
            fork.pid.cancel()
            fork.end.set_result(ForkEnd(None, f"the process that {self._what} was killed: out of memory?"))
