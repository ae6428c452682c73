"""What a gradient estimator is, and how one is fitted by descent."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedsplit.models.model_state import ModelState
from fedsplit.models.steppable import Steppable


@dataclass(frozen=True)
class Chunk:
    """Smashed data `z (b, ...)`, labels `y (b,)`, and per-sample cut gradients `dz` (of the summed loss)."""

    z: Tensor
    y: Tensor
    dz: Tensor


@dataclass(frozen=True)
class FitStep:
    """One step of a fit: on which chunk (by its position), and the seed of dropout."""

    chunk: int
    seed: int


class GradientEstimator(ABC):
    """Turns `(z, y)` into an estimate of the cut gradient with the weights of a small model."""

    trains_on_loss: ClassVar[bool]
    """Whether its model gives logits, and so can be trained on a loss too (warm start)."""

    @abstractmethod
    def model(self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """The model that it estimates with.

        Args:
            auxiliary: the configured auxiliary model, which may be the answer.
            smashed_shape: of one sample.
            num_classes: number of classes.
        """

    @abstractmethod
    def estimate(
        self, model: Steppable, z: Tensor, y: Tensor, *, seed: Any, differentiable: bool = False
    ) -> Tensor:
        """Estimated gradients per sample, of the summed loss, in the shape of `z`; moves no statistics.

        Args:
            model: holds the weights to estimate with, of one client or of many.
            z: smashed data.
            y: labels.
            seed: of what the model draws by itself (dropout); of many clients, one each.
            differentiable: keep the graph to `model.parameters`.
        """

    def fit(self, model: ModelState, chunks: Sequence[Chunk], steps: Sequence[FitStep]) -> None:
        """Fit the estimates to the true gradients: minimise the sum of squared differences.

        Args:
            model: stepped in place, by its own optimizer.
            chunks: what to fit to.
            steps: which chunk to step on, for all epochs one after the other.
        """
        parameters = list(model.parameters.values())
        for step in steps:
            chunk = chunks[step.chunk]
            estimate = self.estimate(model, chunk.z, chunk.y, seed=step.seed, differentiable=True)
            error = (estimate - chunk.dz).square().sum()
            model.descend(torch.autograd.grad(error, parameters), 1.0)
