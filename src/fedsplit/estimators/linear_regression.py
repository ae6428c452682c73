"""Linear regression of the cut gradient, in closed form."""

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.model_state import ModelState
from fedsplit.config.values import PositiveFloat
from fedsplit.estimators.estimator import Chunk, FitStep
from fedsplit.estimators.regression import Regression, classes_of, features
from fedsplit.objectives.objective import Objective


class _LinearMap(nn.Module):
    def __init__(self, smashed: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.zeros(smashed + num_classes, smashed))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


class LinearRegression(Regression):
    """`dz = [z, onehot(y)] W`, with the `W` of ridge regression; the one-hot label carries the offset.

    Its weights hold `(z + classes) z` numbers: meant for small smashed data.

    Args:
        ridge: penalty on `|W|^2`, relative to the mean squared length of a sample's features; it keeps
            the solution finite where there are fewer samples than features.
    """

    def __init__(self, *, ridge: PositiveFloat) -> None:
        self.ridge = ridge

    @override
    def model(
        self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], objective: Objective
    ) -> nn.Module:
        """A linear map of its own; the estimator does not use the configured auxiliary model."""
        return _LinearMap(prod(smashed_shape), classes_of(objective, type(self)))

    @override
    def fit(
        self,
        model: ModelState,
        objective: Objective,
        chunks: Sequence[Chunk],
        steps: Sequence[FitStep],
        *,
        tolerance: float = 0.0,
    ) -> int:
        """The least-squares solution over all chunks at once; epochs, tolerance and optimizer are not needed.

        It counts as one epoch.

        With n samples and d features it solves the smaller of the two equivalent systems: d x d, or
        n x n by `(X'X + r I)^-1 X' = X' (XX' + r I)^-1`.
        """
        num_classes = cast(int, model.module.num_classes)
        x = torch.cat([features(chunk.z, chunk.y, num_classes) for chunk in chunks]).double()
        target = torch.cat([chunk.dz.flatten(1) for chunk in chunks]).double()
        samples, width = x.shape
        penalty = self.ridge * x.square().sum() / samples
        eye = torch.eye(min(samples, width), dtype=x.dtype, device=x.device)
        if samples < width:
            weight = x.T @ torch.linalg.solve(x @ x.T + penalty * eye, target)
        else:
            weight = torch.linalg.solve(x.T @ x + penalty * eye, x.T @ target)
        model.load({"weight": weight})
        return 1
