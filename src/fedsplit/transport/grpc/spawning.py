"""The clients that a server starts on its own machine: one process imports everything once and forks them.

`python -m fedsplit.transport.grpc.spawning` is that process. It reads what to start from the first line
of its standard input, starts a client again that is killed, and ends all of them once that input ends,
however its parent came to its end.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("fedsplit")
_GRACE_S = 5.0
_PAUSE_S = 0.5


@dataclass(frozen=True)
class _Asked:
    """What the process is to start.

    Args:
        server: address and port.
        clients: how many.
        folder: holds a folder for each.
        own: keys of the configuration that are this machine's own.
        modules: to import before anything is forked.
    """

    server: str
    clients: int
    folder: str
    own: dict[str, Any]
    modules: list[str]

    @classmethod
    def of(cls, server: str, clients: int, folder: Path, config: Mapping[str, Any]) -> "_Asked":
        """For a run that is built in this process; see `spawned`."""
        own = {"device": config["device"]}
        own |= {
            f"dataset.{key}": config["dataset"][key]
            for key in ("root", "download")
            if key in config["dataset"]
        }
        # torch and datasets import at first use what takes seconds, and by now they have: each client would
        packages = ("fedsplit", "torch", "torchvision", "sklearn", "zstandard")
        modules = [name for name in sys.modules if name.partition(".")[0] in packages]
        return cls(server, clients, str(folder.absolute()), own, modules)


@contextmanager
def spawned(
    server: str, clients: int, folder: Path, config: Mapping[str, Any], fail: Callable[[str], None]
) -> Iterator[None]:
    """While clients run on this machine.

    Args:
        server: address and port that they dial.
        clients: how many.
        folder: holds a folder for each: its state, its log, and its process in `pid`.
        config: of the run.
        fail: is told when a client ends that should not.
    """
    asked = _Asked.of(server, clients, folder, config)
    process = subprocess.Popen(
        [sys.executable, "-m", "fedsplit.transport.grpc.spawning"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the server's: it ends them when it has saved
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    listener = threading.Thread(target=_listen, args=(process, fail), daemon=True)
    try:
        process.stdin.write(json.dumps(asdict(asked)) + "\n")
        process.stdin.flush()
        listener.start()
        yield
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(2 * _GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        listener.join(_GRACE_S)
        process.stdout.close()


def _listen(process: "subprocess.Popen[str]", fail: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        fail(line.strip())
    if process.wait() != 0:
        fail("the process that starts clients has ended")


class _Nursery:
    """Forks clients, and those anew that are killed."""

    def __init__(self, asked: _Asked) -> None:
        self._asked, self._parent = asked, os.getppid()
        self._running: dict[int, int] = {}

    def run(self) -> None:
        """Until standard input ends."""
        for client in range(self._asked.clients):
            self._start(client)
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            for client, status in self._ended():
                if os.WIFSIGNALED(status):
                    time.sleep(_PAUSE_S)
                    self._start(client)
                elif os.waitstatus_to_exitcode(status):
                    print(f"client {client}: {self._last_words(client)}", flush=True)
        self._stop()

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
        lines = Path(self._asked.folder, str(client), "client.log").read_text("utf-8").splitlines()
        return lines[-1] if lines else "ended"

    def _stop(self) -> None:
        deadline = time.monotonic() + _GRACE_S
        # where the server is gone, nobody has told them that they may end
        while self._running and time.monotonic() < deadline and os.getppid() == self._parent:
            list(self._ended())
            time.sleep(0.02)
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._running):
            os.waitpid(pid, 0)


def _live(asked: _Asked, client: int, folder: Path) -> int:
    """A client's life; its exit code."""
    parent = os.getppid()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    log = os.open(folder / "client.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    from fedsplit.errors import RunFailed, UserError  # noqa: PLC0415
    from fedsplit.transport.grpc.client import Client  # noqa: PLC0415

    try:
        Client(server=asked.server, client=client, tls=None, folder=folder, own=asked.own).attend()
    except (UserError, RunFailed) as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException:
        logging.getLogger("fedsplit").exception("client %s failed", client)
        return 3
    return 0


def _follow(parent: int) -> None:
    """End with the process that started this one, even if it could not say so."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main() -> int:
    """The process that starts clients."""
    asked = _Asked(**json.loads(sys.stdin.readline()))
    for module in asked.modules:
        with suppress(Exception):  # whoever needs it will say what is wrong with it
            import_module(module)
    _Nursery(asked).run()
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes seconds, and nobody needs it
