"""Costs of a client's last alignment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """Cost of an alignment of one client.

    Args:
        samples: samples in the client's ring.
        epochs: passes over them.
    """

    round: int
    samples: int
    epochs: int
