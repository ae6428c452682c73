import os
import signal
import time
from pathlib import Path

import pytest

from fedsplit.transport.grpc.client.client import turn


def forked_with_a_turn(folder: Path, client: int, at_once: int | None) -> int:
    """A process that has a turn and does not end by itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with turn(folder, client, at_once):
            os.write(writing, b"1")
            time.sleep(600)
    os.read(reading, 1)
    return pid


@pytest.mark.parametrize(("client", "at_once"), [(1, 2), (3, None), (2, 4)])
def test_spawned_client_computes_beside_others_unless_its_turn_is_theirs(
    tmp_path: Path, client: int, at_once: int | None
) -> None:
    pid = forked_with_a_turn(tmp_path, 0, at_once)
    try:
        with turn(tmp_path, client, at_once):
            pass  # without waiting: the other has 600 seconds
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_turn_of_a_spawned_client_ends_with_its_killed_process_and_not_before(tmp_path: Path) -> None:
    pid = forked_with_a_turn(tmp_path, 0, 2)
    waiting = os.fork()
    if waiting == 0:
        with turn(tmp_path, 2, 2):
            os._exit(7)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(waiting, 0)[1]) == 7
