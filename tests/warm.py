"""Processes for tests that begin with everything imported: they are forked from one that imports once.

What this package starts as a fresh process becomes such a fork where a test takes the fixture
`warm_processes`, and in commands of `tests.command_line`, which are forks themselves. Fresh processes are
tried in `tests/processes`.
"""

import atexit
import os
import sys
import tempfile
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing.connection import Client, Listener, Pipe
from pathlib import Path
from subprocess import TimeoutExpired
from types import ModuleType
from typing import IO
from unittest import mock

from fedsplit.processes import child, forker
from fedsplit.processes.child import ChildProcess, Serve, end_with_parent
from fedsplit.processes.forker import Fork, Forker, import_all
from fedsplit.transport.grpc.server import spawning

LANGUAGE_MODELS = (
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "peft",
)
"""Modules that a run of a language model takes seconds to import."""


_OF_THIS_PROCESS: list[Forker] = []
MARKS: set[int] = set()
"""Open files by which forks of this process are recognised: they stay open in all of them."""


def warm_forker() -> Forker:
    """The one of this process."""
    if not _OF_THIS_PROCESS:
        _OF_THIS_PROCESS.append(Forker(_import_what_commands_need, "runs commands"))
        atexit.register(_OF_THIS_PROCESS[0].close)
    return _OF_THIS_PROCESS[0]


def _import_what_commands_need() -> None:
    import matplotlib.figure  # noqa: F401, PLC0415
    import torch._dynamo  # noqa: F401, PLC0415

    import fedsplit.training.experiment  # noqa: F401, PLC0415
    from fedsplit.config.compose import compose_config, composing, run_config  # noqa: PLC0415
    from tests.fast_hydra import make_hydra_fast  # noqa: PLC0415

    make_hydra_fast()
    overrides = ["rounds=1", "algorithm=fed_avg", "hydra.run.dir=/a-b/c_d.e", "codec@quant.smashed=none"]
    with (
        composing()
    ):  # what Hydra imports, reads and learns of its grammar for the first, it has for all others
        run_config(compose_config(overrides))


@cache
def import_language_models() -> None:
    """Let forks find them imported: they are imported once, and not in each fork that begins meanwhile."""
    warm_forker().start(_name_language_models, Path(os.devnull)).end.result()


def _name_language_models() -> None:
    """Say that they are imported: what a fork imports, the process that forks imports then."""
    sys.modules.update((name, ModuleType(name)) for name in LANGUAGE_MODELS)


class WarmChild(ChildProcess):
    """A `ChildProcess` that is a fork of the warm process."""

    def __init__(self, serve: Serve, environment: Mapping[str, str], stderr: IO[str] | None = None) -> None:
        said = Path(f"/proc/{os.getpid()}/fd/{2 if stderr is None else stderr.fileno()}")
        with tempfile.TemporaryDirectory() as folder, Listener(str(Path(folder, "here"))) as listener:
            place = str(listener.address)
            life = partial(_live, serve, dict(environment), list(sys.path), place)
            fork = warm_forker().start(life, said)
            self.requests, self.answers = listener.accept(), listener.accept()
        self.process = _Waited(fork)  # type: ignore[assignment]


def _live(serve: Serve, environment: Mapping[str, str], paths: list[str], place: str) -> None:
    """Be a child of the process that listens at a place."""
    os.setsid()  # so that all that it forks can be killed with it
    requests, answers = Client(place), Client(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = paths
    serve(requests, answers)


class _Waited:
    """A fork, as `subprocess` has processes."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self.pid = fork.pid.result()

    def poll(self) -> int | None:
        return self._fork.end.result().code if self._fork.end.done() else None

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            return self._fork.end.result(timeout).code
        except TimeoutError as error:
            raise TimeoutExpired("a fork", timeout or 0.0) from error


class _Forked(ChildProcess):
    """A `ChildProcess` that is a fork of this very process."""

    def __init__(self, serve: Serve, environment: Mapping[str, str], stderr: IO[str] | None = None) -> None:
        requests, self.requests = Pipe(duplex=False)
        self.answers, answers = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _close_all_but({0, 1, 2, requests.fileno(), answers.fileno(), *MARKS})
            end_with_parent()
            serve(requests, answers)
            os._exit(0)
        requests.close()
        answers.close()
        self.process = _Child(pid)  # type: ignore[assignment]


def _close_all_but(kept: Container[int]) -> None:
    """What this process's parent holds open would else stay open when that has ended."""
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept:
            with suppress(OSError):
                os.close(each)


class _Child:
    """A child of this process, as `subprocess` has processes."""

    def __init__(self, pid: int) -> None:
        self.pid, self._code = pid, list[int]()

    def poll(self) -> int | None:
        if not self._code and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self._code.append(os.waitstatus_to_exitcode(ended[1]))
        return self._code[0] if self._code else None

    def wait(self, timeout: float | None = None) -> int | None:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise TimeoutExpired("a fork", timeout or 0.0)
            time.sleep(0.005)
        return code


@contextmanager
def warm_children() -> Iterator[None]:
    """While what this process starts as a fresh one is a fork of the warm process."""
    warm_forker()  # itself a fresh one
    with (
        mock.patch.object(child, "ChildProcess", WarmChild),
        mock.patch.object(forker, "ChildProcess", WarmChild),
        mock.patch.object(spawning, "PACKAGES", ()),  # what else these tests have imported is for others
    ):
        yield


def start_warm_processes() -> None:
    """From now on this process, a fork itself, starts forks of what it is now in place of fresh processes."""
    forker.ChildProcess = _Forked  # type: ignore[misc]
    _OF_THIS_PROCESS[:] = [Forker(partial(import_all, []), "begins processes")]
    forker.ChildProcess = child.ChildProcess = WarmChild  # type: ignore[misc]


def end_warm_processes() -> None:
    """End what `start_warm_processes` has started."""
    _OF_THIS_PROCESS.pop().close()
