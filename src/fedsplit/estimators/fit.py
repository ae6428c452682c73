"""Costs of a client's last alignment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """An alignment of one client.

    Args:
        samples: of its ring.
        epochs: that were run over them.
    """

    round: int
    samples: int
    epochs: int
