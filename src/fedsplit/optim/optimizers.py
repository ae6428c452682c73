"""The optimizers a party can use, by the arguments of `torch.optim`.

All are elementwise: what they do to one parameter depends on no other. That is why SplitFed v1
equals FedAvg.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import unwrap
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import BelowOne, NonNegativeFloat, PositiveFloat
from fedsplit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Arguments of an optimizer; `build` makes one for given parameters.

    Args:
        lr: learning rate, before the schedule's factor.
        weight_decay: weight decay, as in `torch.optim`.
    """

    lr: PositiveFloat
    weight_decay: NonNegativeFloat

    capturable: ClassVar[bool] = False
    """True if steps can be captured as CUDA graphs: `build` and `step_rows` take a rate in a tensor."""

    @abstractmethod
    def build(self, parameters: Sequence[Tensor], rate: Tensor | None = None) -> torch.optim.Optimizer:
        """A new optimizer of `parameters`.

        Args:
            parameters: parameters that it steps.
            rate: learning rate, float32 and 0-d, where steps are captured: they read it from there, and
                keep counts of steps on the device. None: `lr`, a number.
        """


@dataclass(frozen=True, kw_only=True)
class RowOptimizer(Optimizer):
    """An optimizer that can step the stacked parameters of many clients, each at its own count of steps."""

    counts: ClassVar[bool]
    """True if torch's optimizer of this kind keeps a count of steps beside its slots."""

    @property
    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Names of the tensors it keeps for each parameter, as torch's own names them; zero at first."""

    @abstractmethod
    def step_rows(
        self, parameter: Tensor, gradient: Tensor, slots: dict[str, Tensor], steps: Tensor, lr: float | Tensor
    ) -> None:
        """Step each row in place, as torch's own optimizer does.

        Args:
            parameter: `(K, ...)`, a row a client.
            gradient: the same.
            slots: slots of this parameter, `(K, ...)` each.
            steps: number of steps of each row, this one counted, `(K,)`.
            lr: learning rate; in a 0-d tensor where the step is captured.
        """


def _by_row(values: Tensor, like: Tensor) -> Tensor:
    """A number for each row, to be multiplied with `(K, ...)`."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


def _can_fuse(parameters: Sequence[Tensor], rate: Tensor | None) -> bool:
    """Use one pass over memory on a CPU instead of ten: half the time, and a sixth of a ResNet-18's step.

    In a graph, too: these kernels read rate and count of steps from the device, and lose no digits in it.
    """
    return rate is not None or parameters[0].device.type == "cpu"


_Kind = TypeVar("_Kind", bound=torch.optim.Optimizer)


def _without_compiler(kind: type[_Kind]) -> type[_Kind]:
    """A kind of torch's optimizers, without what keeps torch's compiler from looking into it.

    Torch wraps these methods for that, and each wrapper imports the compiler when it first runs: most of a
    second, in a process that compiles no optimizer.
    """
    methods = {"add_param_group": unwrap(kind.add_param_group), "step": torch.no_grad()(unwrap(kind.step))}
    return cast(type[_Kind], type(kind.__name__, (kind,), methods))


_Adam, _AdamW = _without_compiler(torch.optim.Adam), _without_compiler(torch.optim.AdamW)
_Sgd = _without_compiler(torch.optim.SGD)


@dataclass(frozen=True, kw_only=True)
class Adam(RowOptimizer):
    """Source: D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015."""

    counts, capturable = True, True

    betas: tuple[BelowOne, BelowOne]
    eps: PositiveFloat
    amsgrad: bool

    @property
    @override
    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if self.amsgrad else ()))

    def _arguments(self, parameters: Sequence[Tensor], rate: Tensor | None) -> dict[str, Any]:
        return {
            "lr": self.lr if rate is None else rate,
            "betas": tuple(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "amsgrad": self.amsgrad,
            "fused": _can_fuse(parameters, rate),
        }

    @override
    def build(self, parameters: Sequence[Tensor], rate: Tensor | None = None) -> torch.optim.Optimizer:
        """Optimizer of torch that steps by Adam."""
        return _Adam(parameters, **self._arguments(parameters, rate))

    @override
    def step_rows(
        self, parameter: Tensor, gradient: Tensor, slots: dict[str, Tensor], steps: Tensor, lr: float | Tensor
    ) -> None:
        gradient = self._decay(parameter, gradient, lr)
        mean, square = slots["exp_avg"], slots["exp_avg_sq"]
        mean.lerp_(gradient, 1 - self.betas[0])
        square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        if self.amsgrad:
            square = torch.maximum(slots["max_exp_avg_sq"], square, out=slots["max_exp_avg_sq"])
        counts = steps.to(torch.float64)
        scale = _by_row((1 - self.betas[1] ** counts).rsqrt(), parameter)
        rate = _by_row(lr / (1 - self.betas[0] ** counts), parameter)
        root = square.sqrt().mul_(scale).add_(self.eps)
        parameter.sub_(torch.div(mean, root, out=root).mul_(rate))

    def _decay(self, parameter: Tensor, gradient: Tensor, lr: float | Tensor) -> Tensor:
        """Weight decay as part of the gradient."""
        return gradient.add(parameter, alpha=self.weight_decay) if self.weight_decay else gradient


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019."""

    @override
    def build(self, parameters: Sequence[Tensor], rate: Tensor | None = None) -> torch.optim.Optimizer:
        """Optimizer of torch that steps by AdamW."""
        return _AdamW(parameters, **self._arguments(parameters, rate))

    @override
    def _decay(self, parameter: Tensor, gradient: Tensor, lr: float | Tensor) -> Tensor:
        """Weight decay apart from the gradient."""
        parameter.mul_(1 - lr * self.weight_decay)
        return gradient


@dataclass(frozen=True, kw_only=True)
class Sgd(RowOptimizer):
    """Stochastic gradient descent, with momentum if wanted."""

    counts, capturable = False, True

    momentum: BelowOne
    dampening: NonNegativeFloat
    nesterov: bool

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise UserError("nesterov", True, "needs momentum above 0 and dampening 0")

    @override
    def build(self, parameters: Sequence[Tensor], rate: Tensor | None = None) -> torch.optim.Optimizer:
        """Optimizer of torch that steps by SGD."""
        return _Sgd(
            parameters,
            lr=self.lr if rate is None else rate,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True if rate is not None else None,
        )

    @property
    @override
    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    @override
    def step_rows(
        self, parameter: Tensor, gradient: Tensor, slots: dict[str, Tensor], steps: Tensor, lr: float | Tensor
    ) -> None:
        if self.weight_decay:
            gradient = gradient.add(parameter, alpha=self.weight_decay)
        if self.momentum:
            # the first step is not dampened: the velocity begins as the gradient
            share = 1 - self.dampening * (steps > 1).to(torch.float64)
            velocity = slots["momentum_buffer"]
            velocity.mul_(self.momentum).addcmul_(gradient, _by_row(share, gradient))
            gradient = gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity
        if isinstance(lr, Tensor):
            parameter.addcmul_(gradient, lr.to(parameter.dtype), value=-1)
        else:
            parameter.sub_(gradient, alpha=lr)
