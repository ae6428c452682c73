"""The optimizers a party can use, by the arguments of `torch.optim`.

All are elementwise: what they do to one parameter depends on no other. That is why SplitFed v1
equals FedAvg.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedsplit.arguments import BelowOne, NonNegativeFloat, PositiveFloat
from fedsplit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Arguments of an optimizer; `build` makes one for given parameters.

    Args:
        lr: learning rate, before the schedule's factor.
        weight_decay: as in `torch.optim`.
    """

    lr: PositiveFloat
    weight_decay: NonNegativeFloat

    @abstractmethod
    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """A new optimizer of `parameters`."""


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Source: D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015."""

    betas: tuple[BelowOne, BelowOne]
    eps: PositiveFloat
    amsgrad: bool

    def _arguments(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "betas": tuple(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "amsgrad": self.amsgrad,
        }

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """`torch.optim.Adam`."""
        # not fused: on a CPU that is wrong where a gradient's strides differ from its parameter's
        return torch.optim.Adam(parameters, **self._arguments())


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019."""

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`."""
        return torch.optim.AdamW(parameters, **self._arguments())


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Stochastic gradient descent, with momentum if wanted."""

    momentum: BelowOne
    dampening: NonNegativeFloat
    nesterov: bool

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise UserError("nesterov", True, "needs momentum above 0 and dampening 0")

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """`torch.optim.SGD`."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
