"""The life of a client that a server starts on its own machine, in a process of its own."""

import fcntl
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fedsplit.machine.allowance import machine_memory
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.transport import BuildRun


def attend(
    *,
    server: str,
    client: int,
    folder: Path,
    own: Mapping[str, object],
    at_once: int | None,
    build: BuildRun,
) -> None:
    """Be a client until the run has ended.

    Args:
        folder: for its state; those of the other clients are beside it. It tells its process in `pid`.
        at_once: how many may compute at a time; None all.
    """
    (folder / "pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    TrainingClient(
        server=server,
        client=client,
        tls=None,
        folder=folder,
        own=own,
        build=build,
        turn=partial(turn, folder.parent, client, at_once),
        memory_mb=machine_memory() / 1e6,  # the run is this user's own
    ).attend()


@contextmanager
def turn(folder: Path, client: int, at_once: int | None) -> Iterator[None]:
    """While it is a client's turn to compute; a lock on a file, for it ends with a process that is killed.

    Args:
        folder: of all clients.
        at_once: how many may compute at a time; None all.
    """
    if at_once is None:
        yield
        return
    with (folder / f"turn-{client % at_once}").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
