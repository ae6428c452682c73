"""Rules that an operation of a model needs for its input gradient to be differentiated.

With x the input, y = f(x), J the Jacobian there, and a dot for the rate of change along a direction,
an operation gives in this order

    y    = f(x)         value
    g_x  = J' g_y       pull: the gradient, from the output to the input
    y.   = J x.         push: the direction, from the input to the output
    g_x. = (J' g_y).    pull_change: how that gradient changes along the direction

and in the last how the gradients of its own weights change. Where J does not depend on x, as in linear
layers and, almost everywhere, in ReLU and pooling, `g_x. = J' g_y.`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class UnsupportedError(Exception):
    """An operation, or a use of it, that has no rule here."""


class Operation(ABC):
    """One use of an operation, in one pass.

    Args:
        weights: weights of the operation, by their names in its layer.
        layer: layer with its other settings; None for a function.
    """

    def __init__(self, weights: Mapping[str, Tensor], layer: Any = None) -> None:
        self.weights, self.layer = weights, layer
        self.changes: dict[str, Tensor] = {}
        """Changes of the gradients of its weights, by the weights' names; see `pull_change`."""

    @abstractmethod
    def value(self, *inputs: Tensor) -> Tensor:
        """Output of the operation, which keeps what the other methods need.

        Raises:
            UnsupportedError: there is no rule for such inputs.
        """

    @abstractmethod
    def pull(self, g: Tensor) -> Tensor:
        """The gradient at the input (at each of them, for a sum) from that at the output."""

    @abstractmethod
    def push(self, *directions: Tensor) -> Tensor:
        """The change of the output along changes of the inputs."""

    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        """Change of what `pull` returned; fills `changes`.

        Args:
            dg: change of the gradient at the output.
            weights_only: True where nothing before this operation has weights, so that the result is not
                needed.
        """
        return None if weights_only else self.pull(dg)


def images(x: Tensor) -> Tensor:
    """`x`, which must be `(n, c, h, w)`; `UnsupportedError` where it is not."""
    if x.dim() != 4:
        raise UnsupportedError(f"a layer for images on values {tuple(x.shape)}")
    return x
