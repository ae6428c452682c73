"""The moves of clients' steps as CUDA graphs."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fedsplit.computing.captured_steps import GraphedFunction, Outputs, Recorder
from fedsplit.computing.steppable import Steppable
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.objectives.losses import Losses
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.local_step import descend_body, local_step

Range: TypeAlias = tuple[int, int] | None
"""Rows of a stack, from the first to before the last; None of a lone client."""
Model: TypeAlias = Callable[[Range], Steppable]


class GraphedSteps:
    """Steps of body and head of a client, or of some rows of a stack; for models that draw nothing.

    Args:
        recorder: recorder that captures the steps.
        body: client model of these rows.
        head: model behind the client model; None where there is none.
        losses: losses of a client, or of each of these rows.
        estimator: estimator that makes cut gradients of a head that the client does not train.
        rule: rule that both descend along; it draws nothing.
    """

    def __init__(
        self,
        recorder: Recorder,
        body: Model,
        head: Model | None,
        losses: Losses,
        estimator: GradientEstimator,
        *,
        rule: LocalRule,
    ) -> None:
        @torch.no_grad()
        def forward(rows: Range, x: Tensor) -> Outputs:
            model = body(rows)
            return (model.forward(x, seed=None, buffers=model.frozen_buffers()),)

        def backward(rows: Range, x: Tensor, dz: Tensor, factor: Tensor) -> Outputs:
            model = body(rows)
            z = model.forward(x, seed=None)
            descend_body(model, x, z, dz, rule=rule, learning_rate_factor=factor)
            return ()

        def train(rows: Range, train_head_too: bool, x: Tensor, y: Tensor, factor: Tensor) -> Outputs:
            assert head is not None, "this algorithm's clients have no head"
            models = body(rows), head(rows), losses
            return local_step(
                *models,
                x,
                y,
                rule=rule,
                estimator=None if train_head_too else estimator,
                learning_rate_factor=factor,
            )

        self.forward = GraphedFunction(forward, recorder)
        """`(rows, x)` to smashed data; changes no state."""
        self.backward = GraphedFunction(backward, recorder)
        """`(rows, x, dz, factor)`: descend along the cut gradient, on the pass through `x` taken again.

        A graph keeps nothing for another one: activations of all clients, for each of their batch sizes,
        would stay in memory. So the second graph computes the first one's pass again.
        """
        self.train = GraphedFunction(train, recorder)
        """`(rows, train_head_too, x, y, factor)`: see `local_step`."""

    def drop(self) -> None:
        """Forget what was captured: state was replaced."""
        for function in (self.forward, self.backward, self.train):
            function.drop()
