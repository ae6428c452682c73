"""Auxiliary models that fit any cut: small stand-ins for the server model, held by a client."""

from math import prod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.arguments import PositiveInt
from fedsplit.weights import Weights


@runtime_checkable
class ExplicitInputGradient(Protocol):
    """An auxiliary model that knows the gradient of its loss with respect to its input in closed form."""

    def input_gradient(self, weights: Weights, z: Tensor, y: Tensor) -> Tensor:
        """Per sample, of the summed cross-entropy, in the shape of `z`; differentiable in `weights`."""


class LinearAuxiliary(nn.Module):
    """Flatten, then one linear layer to logits."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(prod(smashed_shape), num_classes)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of smashed data."""
        logits: Tensor = self.fc(z.flatten(1))
        return logits

    def input_gradient(self, weights: Weights, z: Tensor, y: Tensor) -> Tensor:
        """`(softmax(z W' + b) - onehot(y)) W`: no second differentiation is needed to align it."""
        weight, bias = weights["fc.weight"], weights["fc.bias"]
        surplus = torch.softmax(F.linear(z.flatten(1), weight, bias), 1) - F.one_hot(y, len(bias))
        return (surplus @ weight).view(z.shape)


class MlpAuxiliary(nn.Module):
    """Flatten, one hidden layer, logits.

    Args:
        hidden: width of the hidden layer.
    """

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int, hidden: PositiveInt) -> None:
        super().__init__()
        self.fc1 = nn.Linear(prod(smashed_shape), hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of smashed data."""
        logits: Tensor = self.fc2(F.relu(self.fc1(z.flatten(1))))
        return logits
