"""Timelines of algorithms, and the description of a round that they are given."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsplit.estimators.fit import Fit
from fedsplit.network.network import SimulatedDevice
from fedsplit.recording.ledger import Direction, Kind

BACKWARD = 2
"""Backward passes as forward ones: the gradients of a product's two factors are a product each."""
STEP = 1 + BACKWARD
"""A forward and a backward pass. What an optimizer does with the gradients is not counted."""


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one sample.

    Args:
        client: multiply-adds of the client model's forward pass.
        server: multiply-adds of the server model's forward pass.
        auxiliary: multiply-adds of the auxiliary model's forward pass; 0 where none is trained on a loss.
        estimate: multiply-adds of the gradient estimator, from smashed data to the estimate; 0 without one.
        local_passes: forward passes that take as long as a local step on the clients' own loss.
        tail: multiply-adds of the forward pass of the tail that clients hold; 0 without one.
    """

    client: int
    server: int
    auxiliary: int = 0
    estimate: int = 0
    local_passes: int = STEP
    tail: int = 0


@dataclass(frozen=True)
class ClientRound:
    """A client's part in a round: what it sent and received, and how long each takes.

    Args:
        sharing: clients that the servers' bandwidth and speed are divided among evenly.
        batches: samples of each local step of the round.
        sizes: bytes by direction, kind and local step (0 of weights).
        fit: cost of its alignment, if it aligned.
    """

    client: int
    device: SimulatedDevice
    servers: SimulatedDevice
    sharing: int
    batches: Sequence[int]
    sizes: Mapping[tuple[Direction, Kind, int], int]
    fit: Fit | None = None

    @property
    def samples(self) -> int:
        """Number of samples of all local steps."""
        return sum(self.batches)

    def has(self, direction: Direction, kind: Kind, step: int = 0) -> bool:
        """True if there was such a message."""
        return (direction, kind, step) in self.sizes

    def upload(self, *kinds: Kind, step: int = 0) -> float:
        """Seconds from the first bit that is sent to the last that arrives; 0 where nothing is sent."""
        return self.sending(*kinds, step=step) + self._latency("up", kinds, step)

    def sending(self, *kinds: Kind, step: int = 0) -> float:
        """Seconds for which an upload keeps the client's link busy: those of `upload` without latency."""
        return self._bits("up", kinds, step) / min(self.device.up, self.servers.up / self.sharing)

    def download(self, *kinds: Kind, step: int = 0) -> float:
        """Seconds from the first bit that is sent to the last that arrives; 0 where nothing is sent."""
        busy = self._bits("down", kinds, step) / min(self.device.down, self.servers.down / self.sharing)
        return busy + self._latency("down", kinds, step)

    def compute(self, multiply_adds: int) -> float:
        """Seconds of the client for some work."""
        return multiply_adds / self.device.speed

    def server_compute(self, multiply_adds: int) -> float:
        """Seconds of the split server for some work, with its share of the speed."""
        return multiply_adds / (self.servers.speed / self.sharing)

    def _bits(self, direction: Direction, kinds: Sequence[Kind], step: int) -> int:
        return 8 * sum(self.sizes.get((direction, kind, step), 0) for kind in kinds)

    def _latency(self, direction: Direction, kinds: Sequence[Kind], step: int) -> float:
        return self.device.latency if any(self.has(direction, kind, step) for kind in kinds) else 0.0


@dataclass(frozen=True)
class Round:
    """A round.

    Args:
        clients: clients in the order in which they first uploaded something.
        samples_at_rest: number of samples that the server went through once all uploads were there.
    """

    clients: Sequence[ClientRound]
    servers: SimulatedDevice
    work: Work
    samples_at_rest: int = 0


class Timeline(ABC):
    """Schedule of an algorithm's round, which says who waits for whom."""

    @abstractmethod
    def seconds(self, round: Round) -> float:
        """Seconds from the first weights that are sent until the last arrive and the servers are done."""
