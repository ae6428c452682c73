"""The process that a server starts clients by: it imports everything once, and forks them.

`python -m fedsplit.tasks.spawned` reads what to start from the first line of its standard input, starts a
client again that is killed, and ends all of them once that input ends, however its parent came to its end.
"""

import fcntl
import json
import logging
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from fedsplit.processes.lifeline import end_with_parent
from fedsplit.transport.grpc.server.spawning import GRACE_S, SpawnRequest, last_words, log_of

_PAUSE_S = 0.5
_MOST_DEATHS, _WITHIN_S = 10, 60.0


class _Nursery:
    """Forks clients, and those anew that are killed."""

    def __init__(self, asked: SpawnRequest) -> None:
        self._asked, self._parent = asked, os.getppid()
        self._running: dict[int, int] = {}
        self._deaths: dict[int, deque[float]] = {}

    def run(self) -> None:
        """Until standard input ends."""
        for client in range(self._asked.clients):
            self._start(client)
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            for client, status in self._ended():
                if os.WIFSIGNALED(status) and self._may_live_again(client):
                    time.sleep(_PAUSE_S)
                    self._start(client)
                elif os.WIFSIGNALED(status):
                    told = f"killed {_MOST_DEATHS} times within {_WITHIN_S:.0f} s: out of memory?"
                    print(f"client {client}: {told}", flush=True)
                elif os.waitstatus_to_exitcode(status):
                    print(f"client {client}: {self._last_words(client)}", flush=True)
        self._stop()

    def _may_live_again(self, client: int) -> bool:
        deaths = self._deaths.setdefault(client, deque(maxlen=_MOST_DEATHS))
        deaths.append(time.monotonic())
        return len(deaths) < _MOST_DEATHS or deaths[-1] - deaths[0] > _WITHIN_S

    def _start(self, client: int) -> None:
        folder = Path(self._asked.folder, str(client))
        folder.mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if pid == 0:
            os._exit(_live(self._asked, client, folder))
        self._running[pid] = client
        (folder / "pid").write_text(f"{pid}\n", encoding="utf-8")

    def _ended(self) -> Iterator[tuple[int, int]]:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield self._running.pop(pid), status

    def _last_words(self, client: int) -> str:
        return last_words(log_of(Path(self._asked.folder), client)) or "ended"

    def _stop(self) -> None:
        deadline = time.monotonic() + GRACE_S
        # where the server is gone, nobody has told them that they may end
        while self._running and time.monotonic() < deadline and os.getppid() == self._parent:
            list(self._ended())
            time.sleep(0.02)
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._running):
            os.waitpid(pid, 0)


def _live(asked: SpawnRequest, client: int, folder: Path) -> int:
    """A client's life; its exit code."""
    end_with_parent()
    log = os.open(log_of(folder.parent, client), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    from fedsplit.building.parts import run_of_member  # noqa: PLC0415
    from fedsplit.errors import RunFailed, UserError  # noqa: PLC0415
    from fedsplit.machine.allowance import machine_memory  # noqa: PLC0415
    from fedsplit.transport.grpc.client.client import Client  # noqa: PLC0415

    try:
        Client(
            server=asked.server,
            client=client,
            tls=None,
            folder=folder,
            own=asked.own,
            build=run_of_member,
            turn=partial(_turn, asked, client),
            memory_mb=machine_memory() / 1e6,  # the run is this user's own
        ).attend()
    except (UserError, RunFailed) as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException:
        logging.getLogger("fedsplit").exception("client %s failed", client)
        return 3
    return 0


@contextmanager
def _turn(asked: SpawnRequest, client: int) -> Iterator[None]:
    """While it is a client's turn to compute; a lock on a file, for it ends with a process that is killed."""
    if asked.at_once is None:
        yield
        return
    with Path(asked.folder, f"turn-{client % asked.at_once}").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The process that starts clients."""
    asked = SpawnRequest(**json.loads(sys.stdin.readline()))
    for module in asked.modules:
        with suppress(Exception):  # whoever needs it will say what is wrong with it
            import_module(module)
    _Nursery(asked).run()
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes seconds, and nobody needs it
