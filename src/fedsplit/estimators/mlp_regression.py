"""Regression of the cut gradient by a small network."""

from math import prod

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.estimators.regression import Regression, classes_of
from fedsplit.objectives.objective import Objective


class _Regressor(nn.Module):
    def __init__(self, smashed: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.fc1 = nn.Linear(smashed + num_classes, hidden)
        self.fc2 = nn.Linear(hidden, smashed)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.fc2(F.relu(self.fc1(inputs)))
        return outputs


class MlpRegression(Regression):
    """`dz` straight from `(z, onehot(y))` through one hidden layer, fitted by descent."""

    def __init__(self, *, hidden: PositiveInt) -> None:
        self.hidden = hidden

    @override
    def model(
        self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], objective: Objective
    ) -> nn.Module:
        """A network of its own; the estimator does not use the configured auxiliary model."""
        return _Regressor(prod(smashed_shape), classes_of(objective, type(self)), self.hidden)
