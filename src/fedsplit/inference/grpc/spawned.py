"""Devices that the server of split inference starts on its own machine."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fedsplit.transport.grpc.server.spawning import data_of_this_machine, last_words

_PROCESS = "fedsplit.tasks.spawned_device"
_GRACE_S = 5.0


class SpawnedDevice:
    """A device that is started on this machine: a process, and below it that of its client half.

    Args:
        number: of the device.
        address: and port of the server.
        model: directory of its deployed client half.
        config: of what is measured.
        log: file for what it says.
    """

    def __init__(self, number: int, address: str, model: Path, config: Mapping[str, Any], log: Path) -> None:
        self._number, self._log = number, log
        self._asked = {
            "server": address,
            "client": number,
            "model": str(model.absolute()),
            "own": data_of_this_machine(config),
            "here": str(Path.cwd()),
        }

    def __enter__(self) -> Self:
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROCESS],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the server's
                text=True,
            )
        assert self._process.stdin is not None
        print(json.dumps(self._asked), file=self._process.stdin, flush=True)
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._process.wait(_GRACE_S if raised[0] is None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.communicate()

    @property
    def words(self) -> str:
        """What it said last, as the end of a sentence; empty where it said nothing."""
        words = last_words(self._log)
        return f"; it says: {words}" if words else ""

    @property
    def failure(self) -> str | None:
        """Why it ended; None while it runs."""
        if self._process.poll() is None:
            return None
        return f"device {self._number}: {last_words(self._log) or 'it was killed: out of memory?'}"
