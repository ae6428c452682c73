"""Auxiliary models that fit any cut: small stand-ins for the server model, held by a client."""

from math import prod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.state.weights import Weights


@runtime_checkable
class ExplicitInputGradient(Protocol):
    """An auxiliary model that knows the gradient of its loss with respect to its input in closed form."""

    def input_gradient(self, weights: Weights, z: Tensor, y: Tensor) -> Tensor:
        """Gradients of the summed cross-entropy per sample, shaped as `z`; differentiable in `weights`."""


@runtime_checkable
class ExplicitErrorGradient(Protocol):
    """An auxiliary model that knows in closed form how its input gradient's squared error changes."""

    def error_gradients(
        self, weights: Weights, z: Tensor, y: Tensor, dz: Tensor, dz_square: Tensor
    ) -> tuple[Tensor, Weights]:
        """The squared error of `input_gradient`, summed, and its gradients by name of parameter.

        Args:
            z: smashed data `(n, ...)`.
            y: labels `(n,)`.
            dz: true cut gradients `(n, ...)`, per sample, of the summed loss.
            dz_square: the sum of their squares.
        """


def less_one_hot(x: Tensor, y: Tensor) -> Tensor:
    """`x - onehot(y)`, `(n, classes)`; unlike with `F.one_hot`, no label is looked at by the host."""
    return x.scatter_add(1, y[:, None], torch.full_like(x[:, :1], -1.0))


class LinearAuxiliary(nn.Module):
    """Flatten, then one linear layer to logits."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(prod(smashed_shape), num_classes)

    @override
    def forward(self, z: Tensor) -> Tensor:
        """Logits of the smashed data `z`."""
        logits: Tensor = self.fc(z.flatten(1))
        return logits

    def input_gradient(self, weights: Weights, z: Tensor, y: Tensor) -> Tensor:
        """`(softmax(z W' + b) - onehot(y)) W`: no second differentiation is needed to align it."""
        weight, bias = weights["fc.weight"], weights["fc.bias"]
        softmax = torch.softmax(F.linear(z.flatten(1), weight, bias), 1)
        return (less_one_hot(softmax, y) @ weight).view(z.shape)

    @torch.no_grad()
    def error_gradients(
        self, weights: Weights, z: Tensor, y: Tensor, dz: Tensor, dz_square: Tensor
    ) -> tuple[Tensor, Weights]:
        """Squared error of the input gradient, and its gradients, without a tensor as large as `z`.

        With `S = softmax(z W' + b)`, `P = S - onehot(y)` and `G = dz` the error is `L = |PW - G|^2`, so
        `dP = 2 (PW - G) W' = 2 (P (WW') - GW')`, through the softmax `dl = S * (dP - rowsum(S * dP))`,
        and `dW = 2 ((P'P) W - P'G) + dl' z`, `db = colsum(dl)`. All are kept transposed, `(classes, n)`:
        so a product with `z` or `dz` is a third faster on a CPU.
        """
        weight, bias = weights["fc.weight"], weights["fc.bias"]
        z, dz = z.flatten(1), dz.flatten(1)
        softmax = torch.softmax(torch.addmm(bias[:, None], weight, z.T), 0)
        surplus = softmax.scatter_add(0, y[None], softmax.new_full((1, len(y)), -1.0))
        through = weight @ dz.T
        weights_squared, surplus_squared = weight @ weight.T, surplus @ surplus.T
        d_surplus = weights_squared @ surplus - through
        d_logits = softmax * (d_surplus - (softmax * d_surplus).sum(0))
        d_weight = torch.addmm(d_logits @ z, surplus_squared, weight)
        d_weight.addmm_(surplus, dz, alpha=-1).mul_(2)
        # Expanding the square cancels where the fit is close: an error of a fraction e of |G|^2 comes with
        # a rounding error of about 1e-7 / e of itself in float32. Alignments end above e = 0.01.
        error = (surplus_squared * weights_squared).sum() - 2 * (surplus * through).sum() + dz_square
        return error, {"fc.weight": d_weight, "fc.bias": 2 * d_logits.sum(1)}


class MlpAuxiliary(nn.Module):
    """Flatten, one hidden layer, logits."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int, hidden: PositiveInt) -> None:
        super().__init__()
        self.fc1 = nn.Linear(prod(smashed_shape), hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    @override
    def forward(self, z: Tensor) -> Tensor:
        """Logits of the smashed data `z`."""
        logits: Tensor = self.fc2(F.relu(self.fc1(z.flatten(1))))
        return logits
