"""Devices that the server of split inference starts on its own machine."""

from contextlib import suppress
from pathlib import Path

from fedsplit.processes.forker import Fork
from fedsplit.transport.grpc.server.spawning import last_words

_GRACE_S = 5.0


class SpawnedDevice:
    """A device that is started on this machine: a process, and below it that of its client half.

    Args:
        log: file for what it says.
    """

    def __init__(self, number: int, fork: Fork, log: Path) -> None:
        self._number, self._fork, self._log = number, fork, log

    def __exit__(self, *raised: object) -> None:
        with suppress(TimeoutError):  # what forked it ends it
            self._fork.ended.result(_GRACE_S if raised[0] is None else 0.1)

    @property
    def words(self) -> str:
        """What it said last, as the end of a sentence; empty where it said nothing."""
        words = last_words(self._log)
        return f"; it says: {words}" if words else ""

    @property
    def failure(self) -> str | None:
        """Why it ended; None while it runs."""
        if not self._fork.ended.done():
            return None
        return f"device {self._number}: {last_words(self._log) or 'it was killed: out of memory?'}"
