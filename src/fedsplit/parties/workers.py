"""Workers that an engine spreads clients over, whichever library starts them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from typing_extensions import override

from fedsplit.errors import RunFailed


class WorkerLost(RunFailed):
    """A worker that is no longer there, with all that it held.

    Args:
        worker: number of the worker.
        reason: reason in a few words.
    """

    def __init__(self, worker: int, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker, self.reason = worker, reason

    @override
    def __str__(self) -> str:
        return f"worker {self.worker} of the cluster was lost: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Resources that a run asks of its workers.

    Args:
        threads: threads of each worker.
        device: device of the run's own models; workers have theirs on one of the same type.
        cohort_bytes: bytes of the weights of all clients of a round.
    """

    threads: int
    device: torch.device
    cohort_bytes: int


@dataclass(frozen=True, kw_only=True)
class WorkerSize:
    """Number of workers, and what each needs.

    Args:
        workers: number of workers; None: as many as there is room for.
        least: least number of workers that a run starts and goes on with.
        deadline_s: seconds to wait for room for all.
        cpus: cores of each worker.
        gpus: GPUs of each worker.
    """

    workers: int | None
    least: int
    deadline_s: float
    cpus: float
    gpus: float

    @property
    def needs_in_words(self) -> str:
        """Needs of each worker, in words."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"each needs {self.cpus:g} CPU{gpus}"

    def least_in_words(self, ended: Mapping[int, str]) -> str:
        """Least number of workers, in words, and why the first of those that ended as they began did.

        Args:
            ended: reasons of workers that ended as they began, by their numbers.
        """
        why = next((f"; worker {worker} ended as it began: {why}" for worker, why in ended.items()), "")
        return f"cluster.min_workers is {self.least}{why}"

    def room(self, cpus: float, gpus: float) -> int:
        """Number of workers that a machine with so many cores and GPUs holds."""
        rooms = [int(available / need) for available, need in ((cpus, self.cpus), (gpus, self.gpus)) if need]
        return min(rooms)


class Cluster:
    """Machines that compute the clients of a run: here its own process."""

    def spawn(self, needs: Needs) -> "Workers | None":
        """The workers that compute clients, not started yet; None: the process of the run does."""
        return None


class Verbs(Protocol):
    """Object in a worker that answers verbs."""

    @property
    def device(self) -> torch.device:
        """Device on which the worker computes."""

    def answer(self, verb: str, *arguments: Any) -> Any:
        """Do what is asked for."""


Build: TypeAlias = Callable[..., Verbs]
"""Function that builds what runs in a worker, which imports it by its module and name."""


@dataclass(frozen=True)
class PendingAnswer:
    """Answer that a worker owes; `handle` is the library's own."""

    worker: int
    handle: object


@dataclass(frozen=True)
class SharedValue:
    """An argument that was sent ahead, once a node; `handle` is the library's own."""

    handle: object


@dataclass
class ClusterSummary:
    """Use of a cluster by a run, for `results.json`.

    Args:
        workers: number of workers that are there.
        nodes: number of machines that they are on.
        lost: number of workers that were lost on the way.
        busy_seconds: seconds that each worker has computed, by its number.
    """

    workers: int = 0
    nodes: int = 0
    lost: int = 0
    busy_seconds: dict[int, float] = field(default_factory=dict)

    def plain(self) -> dict[str, object]:
        """The same, as JSON can hold it."""
        busy = {str(worker): round(seconds, 3) for worker, seconds in sorted(self.busy_seconds.items())}
        return {"workers": self.workers, "nodes": self.nodes, "lost": self.lost, "busy_seconds": busy}


class Workers(ABC):
    """Processes that each compute some clients, by number; one does what it is asked for in order.

    Arguments and answers are trees (dictionaries, lists, tuples) of tensors, plain values and objects of this
    package. Of the arguments of a call, `SharedValue`s arrive as what was shared.
    """

    def __init__(self) -> None:
        self.summary = ClusterSummary()

    @property
    @abstractmethod
    def present(self) -> Sequence[int]:
        """Numbers of the workers that are there, ascending; none before `start` and after `stop`."""

    @abstractmethod
    def start(self, build: Build, *arguments: Any) -> None:
        """Start workers, each with what `build` makes of `arguments` in its process.

        Args:
            build: function that builds what answers verbs, see `Build`.
            arguments: arguments of `build`, which arrive as those of `SharedValue`; their tensors may be
                read only.

        Raises:
            UserError: there are fewer than are needed.
        """

    @abstractmethod
    def ask(self, worker: int, verb: str, *arguments: Any) -> PendingAnswer:
        """Ask a worker for something; it does what it is asked for in order."""

    @abstractmethod
    def share(self, value: Any) -> SharedValue:
        """Send ahead an argument that several workers get."""

    @abstractmethod
    def gather(self, pending: Sequence[PendingAnswer]) -> list[Any]:
        """Wait for answers, in the order of `pending`.

        Raises:
            WorkerLost: a worker is gone.
            Exception: a worker raised it.
        """

    @abstractmethod
    def recover(self) -> None:
        """Put new workers in the place of lost ones, or go on with those that are left.

        Raises:
            RunFailed: they are too few.
        """

    @abstractmethod
    def stop(self) -> None:
        """Let all workers end, and wait for it."""
