"""The clients that a server starts on its own machine, by way of one process that forks them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROCESS = "fedsplit.tasks.spawned"
GRACE_S = 5.0
"""Seconds in which clients end by themselves when they are told."""


@dataclass(frozen=True)
class SpawnRequest:
    """What the process that forks clients is to start.

    Args:
        server: address and port.
        clients: how many.
        folder: holds a folder for each.
        own: keys of the configuration that are this machine's own.
        at_once: how many may compute at a time; None all.
        modules: to import before anything is forked.
    """

    server: str
    clients: int
    folder: str
    own: dict[str, Any]
    at_once: int | None
    modules: list[str]

    @classmethod
    def of(cls, server: str, clients: int, folder: Path, config: Mapping[str, Any]) -> "SpawnRequest":
        """For a run that is built in this process; see `spawned`."""
        own = {"device": config["device"], **data_of_this_machine(config)}
        # torch and datasets import at first use what takes seconds, and by now they have: each client would
        packages = ("fedsplit", "torch", "torchvision", "sklearn", "zstandard")
        modules = [name for name in sys.modules if name.partition(".")[0] in packages]
        # more than there are cores would only push each other out of the caches; but who is late is not to
        # make others late that wait for its turn to end
        some_may_be_late = any(config["transport"][key] for key in ("min_clients", "round_deadline_s"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = None if some_may_be_late else max(1, cores // config["threads"])
        return cls(server, clients, str(folder.absolute()), own, at_once, modules)


def data_of_this_machine(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that say where images are on this machine."""
    dataset = config["dataset"]
    return {f"dataset.{key}": dataset[key] for key in ("root", "download") if key in dataset}


def last_words(log: Path) -> str:
    """The last line that a client or device wrote to its log; empty where there is none."""
    try:
        lines = log.read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def log_of(folder: Path, client: int) -> Path:
    """Where a client in a folder below `folder` says what it does."""
    return folder / str(client) / "client.log"


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
    asked = SpawnRequest.of(server, clients, folder, config)
    process = subprocess.Popen(
        [sys.executable, "-m", _PROCESS],
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
            process.wait(2 * GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        listener.join(GRACE_S)
        process.stdout.close()


def _listen(process: "subprocess.Popen[str]", fail: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        fail(line.strip())
    if process.wait() != 0:
        fail("the process that starts clients has ended")
