"""Every byte that crosses the network, by round, direction and kind, and how true what it carries is."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import inf, log10
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from fedsplit.state.state import State

Kind: TypeAlias = Literal[
    "smashed",
    "labels",
    "cut_gradient",
    "client_weights",
    "auxiliary_weights",
    "full_weights",
    "control_variates",
    "seeds",
    "scalars",
]
Direction: TypeAlias = Literal["up", "down"]

KINDS: tuple[Kind, ...] = get_args(Kind)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass
class Traffic:
    """Amount of all messages of one kind.

    Args:
        bytes: bytes of payload.
        values: numbers in the tensors that were sent.
        signal: sum of squares of what was meant, over messages that did not arrive exactly.
        noise: sum of squares of the difference to what arrived.
    """

    bytes: int = 0
    values: int = 0
    signal: float | Tensor = 0.0
    noise: float | Tensor = 0.0

    def settle(self) -> None:
        """Wait for energies that a GPU still computes."""
        self.signal, self.noise = float(self.signal), float(self.noise)

    @property
    def bits(self) -> float | None:
        """Bits a value; None where nothing was sent."""
        return 8 * self.bytes / self.values if self.values else None

    @property
    def sqnr(self) -> float | None:
        """Signal to quantization noise, in dB; infinite where all is exact, None where nothing was sent."""
        if not self.values:
            return None
        if not self.noise:
            return inf
        return 10 * log10(float(self.signal) / float(self.noise)) if self.signal else -inf


RoundTraffic: TypeAlias = dict[Direction, dict[Kind, Traffic]]
Messages: TypeAlias = dict[tuple[int, Direction, Kind, int], int]
"""Bytes by client, direction, kind and local step (0 of weights), in the order in which they were sent."""


class Ledger:
    """Bytes of payload: `up` is client to server, `down` server to client.

    A broadcast counts once. What a network that has none, such as gRPC, sends beyond that is kept apart.

    Args:
        keeps_messages: True if the messages of each round are kept with their clients, see `pop_messages`.
    """

    def __init__(self, *, keeps_messages: bool = False) -> None:
        self._rounds: dict[int, RoundTraffic] = {}
        self._again: dict[int, dict[Direction, int]] = {}
        self._copies: dict[int, int] = {}
        self._observed: dict[int, int] = {}
        self._keeps_messages = keeps_messages
        self._messages: dict[int, Messages] = {}

    def add(
        self,
        round: int,
        direction: Direction,
        kind: Kind,
        size: int,
        *,
        clients: Sequence[int] = (),
        step: int = 0,
        values: int = 0,
        signal: float | Tensor = 0.0,
        noise: float | Tensor = 0.0,
        broadcast: bool = False,
    ) -> None:
        """Count a message of `size` bytes; see `Traffic` for the rest.

        Args:
            size: bytes; of several messages, all of one size, their sum.
            clients: clients that sent or received one message each.
            step: the local step that it is about; 0 of weights.
            broadcast: True if it is one message of the server, which all of `clients` receive.
        """
        if broadcast:
            self._copies[round] = self.copies(round) + size * (len(clients) - 1)
        if self._keeps_messages:
            each = size if broadcast else size // max(1, len(clients))
            messages = self._messages.setdefault(round, {})
            for client in clients:
                key = (client, direction, kind, step)
                messages[key] = messages.get(key, 0) + each
        traffic = self.traffic(round)[direction][kind]
        traffic.bytes += size
        traffic.values += values
        traffic.signal += signal
        traffic.noise += noise

    def traffic(self, round: int) -> RoundTraffic:
        """Traffic of one round by direction and kind."""
        return self._rounds.setdefault(round, {d: {kind: Traffic() for kind in KINDS} for d in DIRECTIONS})

    def pop_messages(self, round: int) -> Messages:
        """Take the messages of a round, if they are kept; the ledger forgets them."""
        return self._messages.pop(round, {})

    def settle(self, round: int) -> None:
        """Turn what was counted without waiting for a GPU into numbers, at the end of a round."""
        for kinds in self.traffic(round).values():
            for traffic in kinds.values():
                traffic.settle()

    def of_round(self, round: int) -> dict[Direction, dict[Kind, int]]:
        """Bytes of one round, by direction and kind."""
        return {
            d: {kind: each.bytes for kind, each in kinds.items()} for d, kinds in self.traffic(round).items()
        }

    def add_again(self, round: int, direction: Direction, size: int) -> None:
        """Count bytes that were sent again after a failure, or for nothing; they are no part of the load."""
        self.repeated_bytes(round)[direction] += size

    def repeated_bytes(self, round: int) -> dict[Direction, int]:
        """Bytes of one round that failures cost."""
        return self._again.setdefault(round, dict.fromkeys(DIRECTIONS, 0))

    def copies(self, round: int) -> int:
        """Bytes of one round that a network without broadcast sends to clients beyond its `load`."""
        return self._copies.get(round, 0)

    def add_observation(self, round: int, size: int) -> None:
        """Count bytes of models that clients show to be measured, and do not send; no part of the load."""
        self._observed[round] = self.observed_bytes(round) + size

    def observed_bytes(self, round: int) -> int:
        """Bytes of one round of models that clients showed to be measured."""
        return self._observed.get(round, 0)

    def abandon(self, round: int) -> None:
        """A round is begun again: what was counted for it was for nothing."""
        self._messages.pop(round, None)
        for direction, kinds in self._rounds.pop(round, {}).items():
            self.add_again(round, direction, sum(traffic.bytes for traffic in kinds.values()))
        self.add_again(round, "down", self._copies.pop(round, 0))
        self.add_again(round, "up", self._observed.pop(round, 0))

    @property
    def load(self) -> int:
        """The communication load: all bytes of all rounds."""
        return sum(
            traffic.bytes
            for entry in list(self._rounds.values())  # copies: another thread may look meanwhile
            for kinds in list(entry.values())
            for traffic in list(kinds.values())
        )

    def state(self) -> State:
        """Plain nested dictionaries, a list of the numbers of `Traffic` in each leaf."""
        return {
            str(round): {
                d: {kind: list(astuple(each)) for kind, each in kinds.items()}
                for d, kinds in self.traffic(round).items()
            }
            | {"again": dict(self.repeated_bytes(round))}
            | {"copies": self.copies(round), "observed": self.observed_bytes(round)}
            for round in sorted({*self._rounds, *self._again})
        }

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._rounds.clear()
        self._again.clear()
        self._copies.clear()
        self._observed.clear()
        for round, entry in state.items():
            for direction in DIRECTIONS:
                for kind in KINDS:
                    self.traffic(int(round))[direction][kind] = Traffic(*entry[direction][kind])
                self.add_again(int(round), direction, entry["again"][direction])
            if entry["copies"]:
                self._copies[int(round)] = entry["copies"]
            if entry["observed"]:
                self._observed[int(round)] = entry["observed"]
