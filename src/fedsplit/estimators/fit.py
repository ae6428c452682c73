"""What an alignment took."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """An alignment of one client.

    Args:
        round: in which it was.
        samples: of its ring.
        epochs: that were run over them.
    """

    round: int
    samples: int
    epochs: int
