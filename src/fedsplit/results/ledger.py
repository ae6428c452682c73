"""Every byte that crosses the network, by round, direction and kind."""

from typing import Literal, TypeAlias, get_args

from fedsplit.state import State

Kind: TypeAlias = Literal[
    "smashed", "labels", "cut_gradient", "client_weights", "auxiliary_weights", "full_weights"
]
Direction: TypeAlias = Literal["up", "down"]

KINDS: tuple[Kind, ...] = get_args(Kind)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


class Ledger:
    """Bytes of payload: `up` is client to server, `down` server to client."""

    def __init__(self) -> None:
        self._rounds: dict[int, dict[Direction, dict[Kind, int]]] = {}

    def add(self, round: int, direction: Direction, kind: Kind, size: int) -> None:
        """Count a message of `size` bytes."""
        self.of_round(round)[direction][kind] += size

    def of_round(self, round: int) -> dict[Direction, dict[Kind, int]]:
        """Bytes of one round, by direction and kind."""
        return self._rounds.setdefault(
            round, {direction: dict.fromkeys(KINDS, 0) for direction in DIRECTIONS}
        )

    @property
    def load(self) -> int:
        """The communication load: all bytes of all rounds."""
        return sum(
            size for entry in self._rounds.values() for kinds in entry.values() for size in kinds.values()
        )

    def state(self) -> State:
        """Plain nested dictionaries."""
        return {str(round): entry for round, entry in self._rounds.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._rounds.clear()
        for round, entry in state.items():
            for direction in DIRECTIONS:
                for kind in KINDS:
                    self.add(int(round), direction, kind, entry[direction][kind])
