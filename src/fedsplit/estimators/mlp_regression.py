"""Regression of the cut gradient by a small network."""

from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.steppable import Steppable
from fedsplit.config.values import PositiveInt
from fedsplit.estimators.estimator import GradientEstimator


class _Regressor(nn.Module):
    def __init__(self, smashed: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.fc1 = nn.Linear(smashed + num_classes, hidden)
        self.fc2 = nn.Linear(hidden, smashed)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.fc2(F.relu(self.fc1(inputs)))
        return outputs


def features(z: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """What a regression sees of a sample: smashed data and one-hot label, `(b, z + num_classes)`."""
    nothing, one = z.new_zeros(len(y), num_classes), z.new_ones(len(y), 1)
    one_hot = nothing.scatter(1, y[:, None], one)  # `F.one_hot` has the host look at labels
    return torch.cat([z.flatten(1), one_hot], 1)


class MlpRegression(GradientEstimator):
    """`dz` straight from `(z, onehot(y))` through one hidden layer, fitted by descent."""

    trains_on_loss = False

    def __init__(self, *, hidden: PositiveInt) -> None:
        self.hidden = hidden

    def model(self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A network of its own; the configured auxiliary model is not used."""
        return _Regressor(prod(smashed_shape), num_classes, self.hidden)

    def estimate(
        self, model: Steppable, z: Tensor, y: Tensor, *, seed: Any, differentiable: bool = False
    ) -> Tensor:
        num_classes = cast(int, model.module.num_classes)
        with torch.set_grad_enabled(differentiable):
            inputs = model.each(lambda z, y: features(z, y, num_classes), z, y)
            return model.forward(inputs, seed=seed).view(z.shape)
