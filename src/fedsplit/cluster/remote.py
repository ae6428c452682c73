"""Process of a worker, whichever library started it."""

import os
from time import perf_counter
from typing import Any

import torch

from fedsplit.cluster.packing import pack, unpack
from fedsplit.parties.workers import Build, Verbs


class RemoteWorker:
    """A worker in a process of its own; what goes in and out is packed."""

    def __init__(self) -> None:
        self._verbs: Verbs | None = None
        self._device: torch.device | None = None

    def begin(self, build: Build, environment: dict[str, str], given: Any) -> None:
        """Become what `build` makes of what is given.

        Args:
            environment: variables that the process of the run has, and that choices are looked up by.
            given: arguments of `build`, packed; their memory is shared with other workers.
        """
        os.environ.update(environment)
        self._verbs = build(*unpack(given, shared=True))
        self._device = self._verbs.device

    def do(self, verb: str, *packed: Any) -> tuple[float, Any]:
        """Seconds that a verb took, and its answer."""
        assert self._verbs is not None, "a worker begins before it is asked"
        began = perf_counter()
        answer = self._verbs.answer(verb, *(unpack(each, self._device) for each in packed))
        return perf_counter() - began, pack(answer)
