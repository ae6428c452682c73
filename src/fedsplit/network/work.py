"""The work of a round in multiply-adds."""

from dataclasses import dataclass

BACKWARD = 2
"""Backward passes as forward ones: the gradients of a product's two factors are a product each."""
STEP = 1 + BACKWARD
"""A forward and a backward pass. What an optimizer does with the gradients is not counted."""


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one sample.

    Args:
        client: of the client model's forward pass.
        server: of the server model's.
        auxiliary: of the auxiliary model's; 0 where there is none that is trained on a loss.
        estimate: of the gradient estimator, from smashed data to the estimate; 0 where there is none.
    """

    client: int
    server: int
    auxiliary: int = 0
    estimate: int = 0
