"""The clients that a server starts on its own machine, each a fork of one process."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from fedsplit.config.run_config import RunConfig
from fedsplit.machine.cores import jobs_at_once
from fedsplit.processes.forker import PACKAGES, Fork, ForkEnd, Forker, import_all
from fedsplit.transport.grpc.client.client import attend
from fedsplit.transport.grpc.protocol.plan import Choices, compositions, take_over
from fedsplit.transport.transport import RunSetting

_GRACE_S = 5.0
"""Seconds in which clients end by themselves when they are told."""
_PAUSE_S = 0.5
_MOST_DEATHS, _WITHIN_S = 10, 60.0


def last_words(log: Path) -> str:
    """The last line that a client or device wrote to its log; empty where there is none."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def log_of(folder: Path, client: int) -> Path:
    """Log file of a client, in a folder below `folder`."""
    return folder / str(client) / "client.log"


def warm_forker(what: str) -> Forker:
    """A process that has imported and composed what this one has, for it takes seconds; see `Forker`."""
    modules = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return Forker(partial(_prepare, modules, compositions()), what)


def _prepare(modules: Iterable[str], composed: Mapping[Choices, RunConfig]) -> None:
    import_all(modules)
    take_over(composed)


@contextmanager
def spawn(
    server: str, folder: Path, run: RunSetting, fail: Callable[[str], None], *, in_turn: bool
) -> Iterator[None]:
    """Run all clients on this machine; one that is killed is started again.

    Args:
        folder: holds a folder for each: its state, its log, and its process in `pid`.
        fail: is told when a client ends that should not.
        in_turn: True to let no more compute at a time than there are cores.
    """
    with closing(warm_forker("starts clients")) as forker:
        clients = _Clients(forker, server, folder.absolute(), run, fail, in_turn=in_turn)
        clients.start_all()
        try:
            yield
        finally:
            clients.await_end()


class _Clients:
    """Starts clients, and those again that are killed."""

    def __init__(
        self,
        forker: Forker,
        server: str,
        folder: Path,
        run: RunSetting,
        fail: Callable[[str], None],
        *,
        in_turn: bool,
    ) -> None:
        self._forker, self._folder, self._fail = forker, folder, fail
        # more than there are cores would only push each other out of the caches
        at_once = jobs_at_once(run.config.computation.threads) if in_turn else None
        own = run.config.of_this_machine()
        self._attend = partial(attend, server=server, own=own, at_once=at_once, build=run.build)
        self._deaths = [deque[float](maxlen=_MOST_DEATHS) for _ in run.sample_counts]
        self._running: dict[int, Fork] = {}
        self._ending = False

    def start_all(self) -> None:
        for client in range(len(self._deaths)):
            self._start(client)

    def _start(self, client: int) -> None:
        folder = self._folder / str(client)
        folder.mkdir(parents=True, exist_ok=True)
        life = partial(self._attend, client=client, folder=folder)
        self._running[client] = fork = self._forker.start(life, log_of(self._folder, client))
        fork.end.add_done_callback(partial(self._on_end, client))

    def _on_end(self, client: int, end: "Future[ForkEnd]") -> None:
        ended = end.result()
        if self._ending:
            return
        if ended.code is None:
            self._fail(str(ended.error))
        elif ended.code >= 0:
            if ended.code:
                self._fail(f"client {client}: {ended.error}")
        elif self._may_live_again(client):
            time.sleep(_PAUSE_S)
            self._start(client)
        else:
            message = f"killed {_MOST_DEATHS} times within {_WITHIN_S:.0f} s: out of memory?"
            self._fail(f"client {client}: {message}")

    def _may_live_again(self, client: int) -> bool:
        deaths = self._deaths[client]
        deaths.append(time.monotonic())
        return len(deaths) < _MOST_DEATHS or deaths[-1] - deaths[0] > _WITHIN_S

    def await_end(self) -> None:
        """Wait for a while until all have ended; what is left is killed with the process that started it."""
        self._ending = True
        deadline = time.monotonic() + _GRACE_S
        for fork in list(self._running.values()):
            with suppress(TimeoutError):
                fork.end.result(max(0.0, deadline - time.monotonic()))
