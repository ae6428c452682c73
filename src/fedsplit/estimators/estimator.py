"""Gradient estimators, and how one is fitted by descent."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedsplit.computing.captured_steps import GraphedFunction, Outputs
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.multiply_adds import attention_in_products
from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.objectives.losses import Losses
from fedsplit.objectives.objective import Objective


@dataclass(frozen=True)
class Chunk:
    """Smashed data `z (b, ...)`, labels `y (b, ...)`, and gradients `dz` of the summed loss, per sample."""

    z: Tensor
    y: Tensor
    dz: Tensor

    @cached_property
    def dz_square(self) -> Tensor:
        """The sum of the squares of `dz`, added up in float64."""
        norm: Tensor = torch.linalg.vector_norm(self.dz, dtype=torch.float64)
        return norm.square().to(self.dz.dtype)


@dataclass(frozen=True)
class FitStep:
    """One step of a fit: the position of its chunk, and the seed of dropout."""

    chunk: int
    seed: int


WINDOW, BETWEEN_LOOKS = 20, 10
"""Epochs over which the error of a fit must fall, and from one look at it to the next."""


class Settling:
    """Test of whether the error over an epoch is still falling.

    It is looked at after epochs 1, 11, 21 and so on, since on a GPU each look waits for the device, and
    compared with 20 epochs before: in 10 an alignment may stand still, or rise after a long first step, and
    then fall again.

    Args:
        tolerance: largest fall, as a fraction over the last `WINDOW` epochs, that counts as settled; 0:
            never.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._epochs = 0
        self._errors: list[float] = []

    def is_reached(self, errors: Sequence[Tensor]) -> bool:
        """True if the fit may stop after one more epoch; `errors` are those of all steps so far."""
        self._epochs += 1
        if self._tolerance == 0 or self._epochs % BETWEEN_LOOKS != 1:
            return False
        self._errors.append(float(torch.stack(list(errors)).sum()))
        looks = WINDOW // BETWEEN_LOOKS
        if len(self._errors) <= looks:
            return False
        return self._errors[-1] >= (1 - self._tolerance) * self._errors[-1 - looks]


class GradientEstimator(ABC):
    """Turns `(z, y)` into an estimate of the cut gradient with the weights of a small model."""

    trains_on_loss: ClassVar[bool]
    """True if its model gives logits, so that it can be trained on a loss too (warm start)."""

    @abstractmethod
    def model(
        self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], objective: Objective
    ) -> nn.Module:
        """The model that the estimator computes with.

        Args:
            auxiliary: the configured auxiliary model, which may be the answer.

        Raises:
            UserError: the estimator cannot estimate gradients of this objective.
        """

    @abstractmethod
    def estimate(
        self,
        model: Steppable,
        losses: Losses,
        z: Tensor,
        y: Tensor,
        *,
        seed: Seed,
        differentiable: bool = False,
    ) -> Tensor:
        """Estimated gradients per sample, of the summed loss, in the shape of `z`; moves no statistics.

        Args:
            model: weights to estimate with, of one client or of many.
            losses: losses whose gradients the true ones are.
            seed: seed of what the model draws by itself (dropout); for many clients, one each.
            differentiable: True to keep the graph to `model.parameters`.
        """

    def error_gradients(
        self, model: ModelState, objective: Objective, chunk: Chunk, *, seed: int | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Sum of squared differences to the true gradients, and its gradients, in the order of `trainable`.

        Args:
            model: weights to estimate with; not stepped.
            objective: objective whose gradients the true ones are.
            seed: seed of what the model draws by itself (dropout); None where it draws nothing.
        """
        with attention_in_products():  # fused attention has no second derivative
            estimate = self.estimate(model, objective, chunk.z, chunk.y, seed=seed, differentiable=True)
            error = (estimate - chunk.dz).square().sum()
            return error.detach(), torch.autograd.grad(error, list(model.trainable.values()))

    def fit(
        self,
        model: ModelState,
        objective: Objective,
        chunks: Sequence[Chunk],
        steps: Sequence[FitStep],
        *,
        tolerance: float = 0.0,
    ) -> int:
        """Fit the estimates to the true gradients: minimise the sum of squared differences.

        Return the number of epochs.

        Where the model has a recorder a step is captured, with chunks as inputs: once for each size that
        they have, and only for this fit.

        Args:
            model: model that the fit steps in place, by its own optimizer.
            objective: objective whose gradients the true ones are.
            steps: chunk of each step, for all epochs one after the other; an epoch has as many steps as
              there are chunks.
            tolerance: fall of the error below which the fit ends early, see `Settling`.
        """

        def fit_step(chunk: Chunk, seed: int | None) -> Tensor:
            error, gradients = self.error_gradients(model, objective, chunk, seed=seed)
            model.descend(gradients, 1.0)
            return error

        def capturable_step(z: Tensor, y: Tensor, dz: Tensor) -> Outputs:
            return (fit_step(Chunk(z, y, dz), None),)

        graph_function = GraphedFunction(capturable_step, model.recorder) if model.recorder else None
        settling = Settling(tolerance)
        epochs = 0
        for start in range(0, len(steps), len(chunks)):
            errors: list[Tensor] = []
            for step in steps[start : start + len(chunks)]:
                chunk = chunks[step.chunk]
                errors += (
                    graph_function(chunk.z, chunk.y, chunk.dz)
                    if graph_function
                    else [fit_step(chunk, step.seed)]
                )
            epochs += 1
            if settling.is_reached(errors):
                break
        return epochs
