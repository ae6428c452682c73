"""What the process behind a `Forker` does: forks itself for each call, and tells how each fork ended."""

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, Pipe, wait

from fedsplit.errors import RunFailed, UserError
from fedsplit.processes.child import end_with_parent

PACKAGES = ("fedsplit", "torch", "torchvision", "sklearn", "scipy", "numpy", "zstandard")
"""What a fork had to import of these, the next one finds."""
_LONGEST = 2000
"""Characters of an error."""


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
class Ended:
    """How a fork ended.

    Args:
        code: its exit code; negative: of the signal that killed it; None: what forks is gone, and so is this.
        error: why it failed, in one line; None where it did not.
    """

    code: int | None
    error: str | None
    value: object = None


def import_all(modules: Iterable[str]) -> None:
    """Import modules by name, as far as they can be: whoever needs one says what is wrong with it."""
    for module in modules:
        with suppress(Exception):
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
                answers.send((call.number, Ended(code, _failure(call, code, error), value)))
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
                telling, pid = _forked(request, [requests, answers, *running])
                running[telling] = request, pid
                answers.send((request.number, pid))
            else:
                for call, pid in running.values():
                    if call.number == request.number:
                        os.kill(pid, request.signal)


def _last_words(fork: Connection) -> tuple[list[str], str | None, object]:
    """What a fork told at its end: modules it imported, its error, its value."""
    with fork:
        try:
            told: tuple[list[str], str | None, object] = fork.recv()
        except (EOFError, OSError):
            return [], None, None
        return told


def _failure(call: Call, code: int, error: str | None) -> str | None:
    if code >= 0:
        return (error or f"ended with exit code {code}") if code else None
    why = ": out of memory?" if -code == signal.SIGKILL else f"; see {call.errors}"
    return f"killed by {signal.Signals(-code).name}{why}"


def _forked(call: Call, of_parent: list[Connection]) -> tuple[Connection, int]:
    """A fork: the pipe that its last words come from, which also its end closes, and its process."""
    heard, telling = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        for each in (heard, *of_parent):
            each.close()
        os._exit(_live(call, telling))
    telling.close()
    return heard, pid


def _live(call: Call, telling: Connection) -> int:
    """A fork's life; its exit code."""
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
