"""Workers in this process: what travels is packed as for others, and workers are lost on demand."""

from collections.abc import Sequence
from copy import deepcopy
from time import perf_counter
from typing import Any

from typing_extensions import override

from fedsplit.cluster.packing import pack, unpack
from fedsplit.config.values import PositiveInt
from fedsplit.errors import RunFailed
from fedsplit.parties.workers import (
    Build,
    Cluster,
    Needs,
    PendingAnswer,
    SharedValue,
    Verbs,
    WorkerLost,
    Workers,
)


class InProcess(Cluster):
    """Workers in the process of the run, which compute one after the other: for tests.

    Args:
        workers: number of workers.
        min_workers: number of workers without which a run ends.
    """

    def __init__(self, *, workers: PositiveInt, min_workers: PositiveInt = 1) -> None:
        self._count, self._min_workers = workers, min_workers

    @override
    def spawn(self, needs: Needs) -> "InProcessWorkers":
        return InProcessWorkers(self._count, self._min_workers)


class InProcessWorkers(Workers):
    """Workers that compute where they are asked; see `InProcess`."""

    def __init__(self, count: int, min_workers: int) -> None:
        super().__init__()
        self.count, self.min_workers = count, min_workers
        self.there: dict[int, Verbs] = {}
        self.calls: list[str] = []
        """Verbs, in the order in which they were asked for."""
        self.dies: dict[int, list[str]] = {}
        """Workers that are lost once they were asked for each of these verbs, in this order."""
        self.stays_away: set[int] = set()
        """Workers that do not come back."""
        self._lost: set[int] = set()

    @property
    @override
    def present(self) -> Sequence[int]:
        return sorted(self.there)

    @override
    def start(self, build: Build, *given: Any) -> None:
        packed = pack(given)
        self._begin = (build, packed)
        self.there = {worker: self._build() for worker in range(self.count)}
        self.summary.workers, self.summary.nodes = self.count, 1

    def _build(self) -> Verbs:
        build, packed = self._begin
        return build(*unpack(packed, shared=True))

    @override
    def ask(self, worker: int, verb: str, *arguments: Any) -> PendingAnswer:
        self.calls.append(verb)
        if (verbs := self.dies.get(worker)) and verbs[0] == verb:
            verbs.pop(0)
            if not verbs:
                self._lost.add(worker)
        if worker in self._lost:
            return PendingAnswer(worker, None)
        began = perf_counter()
        sent = (each.handle if isinstance(each, SharedValue) else deepcopy(pack(each)) for each in arguments)
        try:
            answer = self.there[worker].answer(verb, *map(unpack, sent))
        except Exception as error:
            return PendingAnswer(worker, error)
        busy = self.summary.busy_seconds
        busy[worker] = busy.get(worker, 0.0) + perf_counter() - began
        return PendingAnswer(worker, (deepcopy(pack(answer)),))

    @override
    def share(self, value: Any) -> SharedValue:
        return SharedValue(deepcopy(pack(value)))

    @override
    def gather(self, pending: Sequence[PendingAnswer]) -> list[Any]:
        answers = []
        for each in pending:
            if each.handle is None:
                raise WorkerLost(each.worker, "it was to be lost")
            if isinstance(each.handle, Exception):
                raise each.handle
            answers.append(unpack(each.handle[0]))  # type: ignore[index]
        return answers

    @override
    def recover(self) -> None:
        for worker in self._lost:
            del self.there[worker]
            if worker not in self.stays_away:
                self.there[worker] = self._build()
        self.summary.lost += len(self._lost)
        self._lost = set()
        if len(self.there) < self.min_workers:
            message = f"workers left: {len(self.there)}, and cluster.min_workers is {self.min_workers}"
            raise RunFailed(message)

    @override
    def stop(self) -> None:
        self.there = {}
