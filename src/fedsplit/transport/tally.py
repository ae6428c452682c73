"""Count of messages, and the end of a round in which a message is not finite."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.quant.coded import SentTensor
from fedsplit.recording.ledger import Direction, Kind, Ledger


class SentMessage(Protocol):
    """A tensor on its way, `Coded` or announced: bytes of payload, and the rest as in `Traffic`."""

    @property
    def size(self) -> int:
        """Number of bytes of payload."""

    @property
    def values(self) -> int:
        """Number of values in the tensor."""

    @property
    def signal(self) -> float | Tensor:
        """Sum of the squares of the values before coding."""

    @property
    def noise(self) -> float | Tensor:
        """Sum of the squares of the errors that coding made."""


class Tally:
    """Counts the messages of a round in the ledger, and finds those that are not finite.

    On a CPU codecs find them, and `rows` in stacks, which no codec sees.

    Args:
        ledger: ledger that counts bytes.
        round: number of the round.
        looks_later: True to look at messages in `settle`, so that nothing waits for a GPU before.
    """

    def __init__(self, ledger: Ledger, round: int, *, looks_later: bool = False) -> None:
        self._ledger, self._round, self._looks_later = ledger, round, looks_later
        self._flags: list[tuple[Kind, int | None, Tensor]] = []

    def message(
        self, direction: Direction, kind: Kind, client: int, sent: SentMessage, step: int = 0
    ) -> None:
        """Count a message to or from one client, of a local step (0 of weights)."""
        self._flag(kind, client, sent)
        self._add(direction, kind, [client], sent, step=step)

    def broadcast(self, kind: Kind, clients: Sequence[int], sent: SentMessage, step: int = 0) -> None:
        """Count a message of the server, of a local step, that all of these clients receive as one."""
        self._flag(kind, None, sent)
        self._add("down", kind, clients, sent, step=step, broadcast=True)

    def copies(self, kind: Kind, clients: Sequence[int], sent: SentMessage) -> None:
        """Count a message of the server that goes to each of these clients."""
        self._flag(kind, None, sent)
        self._add("down", kind, clients, sent, copies=len(clients))

    def rows(
        self, direction: Direction, kind: Kind, clients: Sequence[int], sent: SentTensor, step: int = 0
    ) -> None:
        """Count messages of many clients, a row each, that arrive as they are.

        Raises:
            NonFinite: a row is not finite, and is not to be looked at later.
        """
        rows = sent.original
        if self._looks_later:
            for client, row in zip(clients, rows.unbind(), strict=True):
                self._flag(kind, client, SentTensor.sent_exactly(row))
        elif rows.is_floating_point() and not rows.sum().isfinite():
            bad = (~rows.flatten(1).isfinite().all(1)).nonzero().flatten()
            if len(bad):
                raise NonFinite(kind, clients[int(bad[0])])
        self._add(direction, kind, clients, sent, step=step)

    def count_observation(self, size: int) -> None:
        """Count bytes of weights that are looked at and not sent."""
        self._ledger.add_observation(self._round, size)

    def _flag(self, kind: Kind, client: int | None, sent: SentMessage) -> None:
        if self._looks_later and isinstance(sent, SentTensor) and sent.original.is_floating_point():
            self._flags.append((kind, client, sent.original.isfinite().all()))

    def _add(
        self,
        direction: Direction,
        kind: Kind,
        clients: Sequence[int],
        sent: SentMessage,
        *,
        step: int = 0,
        copies: int = 1,
        broadcast: bool = False,
    ) -> None:
        self._ledger.add(
            self._round,
            direction,
            kind,
            copies * sent.size,
            clients=clients,
            step=step,
            values=copies * sent.values,
            signal=copies * sent.signal,
            noise=copies * sent.noise,
            broadcast=broadcast,
        )

    def settle(self) -> None:
        """Wait, at the end of the round, for everything that was not waited for.

        Raises:
            NonFinite: a message was not finite.
        """
        flags, self._flags = self._flags, []
        fine = torch.stack([flag for _, _, flag in flags]).tolist() if flags else []
        for (kind, client, _), finite in zip(flags, fine, strict=True):
            if not finite:
                raise NonFinite(kind, client)
        self._ledger.settle(self._round)
