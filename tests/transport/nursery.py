"""Client processes for many runs, without the seconds that importing everything costs each of them."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from fedsplit.tasks import spawned as clients_process
from fedsplit.transport.grpc.server import spawning
from tests.transport import processes

LIMIT_S = 300.0
"""Seconds that clients never take to end."""


@contextmanager
def spawned(
    server: str, clients: int, folder: Path, config: Mapping[str, Any], fail: Callable[[str], None]
) -> Iterator[None]:
    """As `spawning.spawned`, but for imports: the process that starts clients is forked, and has them."""
    order = replace(spawning.SpawnRequest.of(server, clients, folder, config), modules=[])
    order_out, order_in = processes.pipe()
    failures_out, failures_in = processes.pipe()
    process = processes.forked(_start_clients, order_out, failures_in)
    order_out.close()
    failures_in.close()
    ended = False

    def listen() -> None:
        with os.fdopen(os.dup(failures_out.fileno())) as lines:
            for line in lines:
                fail(line.strip())
        if not ended:
            fail("the process that starts clients has ended")

    listener = Thread(target=listen, daemon=True)
    listener.start()
    os.write(order_in.fileno(), f"{json.dumps(asdict(order))}\n".encode())
    try:
        yield
    finally:
        ended = True
        order_in.close()
        listener.join(LIMIT_S)  # until all of them have ended
        process.join(LIMIT_S)
        failures_out.close()
        assert process.exitcode == 0


def _start_clients(order: Connection, failures: Connection) -> None:
    """What `python -m fedsplit.tasks.spawned` does once it has imported everything."""
    for end, standard in ((order, 0), (failures, 1)):
        os.dup2(end.fileno(), standard)
        end.close()
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    os.setsid()
    os._exit(clients_process.main())
