"""A model that data can be passed through and that can be stepped, of one client or of many."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn

Seed: TypeAlias = Any
"""Seed of what a pass draws: a number, for many clients a number each; None draws nothing."""


RuleTensors: TypeAlias = dict[str, dict[str, Tensor]]
"""Tensors by parameter, under names that a rule of local steps gives them."""


class Steppable(Protocol):
    """`ModelState`, or some rows of a `StackedState`: there every tensor has a row a client."""

    module: nn.Module
    parameters: dict[str, Tensor]
    trainable: dict[str, Tensor]
    """Parameters that steps move: all but those with `requires_grad=False`."""
    anchor: dict[str, Tensor]
    """`trainable` as it was loaded last; empty where no rule needs it."""
    buffers: dict[str, Tensor]
    """Running statistics and the like, which no gradient moves."""
    rule_tensors: RuleTensors
    """Tensors that the local rule keeps from round to round, each like `trainable`; zero at first."""

    def forward(
        self, x: Tensor, *, seed: Seed, buffers: dict[str, Tensor] | None = None, at: Tensor | None = None
    ) -> Tensor:
        """Outputs in training mode; `seed` is a number, or one for each client; None: nothing is drawn.

        `at` is of one client: positions whose outputs are wanted, see `outputs_at`.
        """

    def frozen_buffers(self) -> dict[str, Tensor]:
        """Copies for a pass that must not move the running statistics."""

    def move_buffers(self, buffers: dict[str, Tensor]) -> None:
        """Take over running statistics of a forward pass."""

    def for_each(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        """Call a function of one client for each client, and return the results as rows."""

    def descend(self, gradients: Sequence[Tensor], learning_rate_factor: float | Tensor) -> None:
        """Make one optimizer step along `gradients`, given in the order of `trainable`."""
