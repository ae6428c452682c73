"""Layers of many clients as one computation: those that have a rule of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from fedsplit.computing.layout import ELEMENTWISE
from fedsplit.computing.local_response_norm import LocalResponseNorm
from fedsplit.computing.model_state import compute_format

_CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_IMAGES = 5  # dimensions of `(K, b, c, h, w)`


@dataclass(frozen=True)
class GroupedImages:
    """Images of K clients side by side in the channels, `(b, K c, h, w)`: what grouped convolutions take."""

    tensor: Tensor


Value: TypeAlias = Any
"""A tensor `(K, b, ...)` with a row a client, a `Grouped`, or whatever else a graph hands around."""


@dataclass(frozen=True)
class Stack:
    """K clients in one pass, and the streams that each draws from; without dropout there are none."""

    clients: int
    streams: Sequence[torch.Generator]

    def rows(self, value: Value) -> Value:
        """A value with a row a client."""
        if isinstance(value, GroupedImages):
            batch, _, height, width = value.tensor.shape
            return value.tensor.view(batch, self.clients, -1, height, width).transpose(0, 1)
        return value

    def group(self, value: Value) -> Tensor:
        """Images with the clients side by side in the channels."""
        if isinstance(value, GroupedImages):
            return value.tensor
        side_by_side = cast(Tensor, value).transpose(0, 1).flatten(1, 2)
        return side_by_side.contiguous(memory_format=torch.channels_last)


def by_rule(stack: Stack, module: nn.Module, own: dict[str, Tensor], x: Value) -> Value | None:
    """The output of a layer, by the rule of its kind; None where it has none, or that does not fit.

    Args:
        own: parameters and buffers of the layer, `(K, ...)`; running statistics are moved.
    """
    images = isinstance(x, GroupedImages) or x.ndim == _IMAGES
    for kinds, needs_images, rule in _RULES:
        if (images or not needs_images) and _is_plain(module, kinds):
            value = rule(stack, module, own, x)
            if value is not None:
                return value
    return None


def elementwise(
    function: Callable[..., Value], args: Sequence[Value], kwargs: dict[str, Value] | None = None
) -> Value:
    """Result of a function that changes values one by one."""
    bare = [arg.tensor if isinstance(arg, GroupedImages) else arg for arg in args]
    result = function(*bare, **(kwargs or {}))
    return GroupedImages(result) if any(isinstance(arg, GroupedImages) for arg in args) else result


def _is_plain(module: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    """True if a layer computes as its kind does, with the tensors of its kind, in training mode.

    A subclass may compute anything, and so may a parametrized layer, whose class is one. A weight that is no
    parameter is not stacked.
    """
    known = {name for name in _TENSORS if getattr(module, name, None) is not None}
    exact = type(module) in (kinds if isinstance(kinds, tuple) else (kinds,))
    return exact and module.training and module.state_dict().keys() == known


def _activate(stack: Stack, module: nn.Module, own: dict[str, Tensor], x: Value) -> Value:
    return elementwise(module, (x,))


def _flatten(stack: Stack, module: nn.Flatten, own: dict[str, Tensor], x: Value) -> Tensor | None:
    return stack.rows(x).flatten(2) if (module.start_dim, module.end_dim) == (1, -1) else None


def _linear(stack: Stack, module: nn.Linear, own: dict[str, Tensor], x: Value) -> Tensor | None:
    x = stack.rows(x)
    if x.ndim != 3:
        return None
    output: Tensor = _Linear.apply(x, own["weight"], own.get("bias"))  # type: ignore[no-untyped-call]
    return output


def _pool(stack: Stack, module: nn.Module, own: dict[str, Tensor], x: Value) -> GroupedImages:
    return GroupedImages(module(stack.group(x)))


def _convolve(stack: Stack, module: nn.Conv2d, own: dict[str, Tensor], x: Value) -> GroupedImages | None:
    if module.padding_mode != "zeros":
        return None
    weight, bias = own["weight"].flatten(0, 1), own["bias"].flatten() if "bias" in own else None
    spread = module.stride, cast(tuple[int, int], module.padding), module.dilation
    return GroupedImages(F.conv2d(stack.group(x), weight, bias, *spread, stack.clients * module.groups))


def _batch_norm_2d(
    stack: Stack, module: nn.BatchNorm2d, own: dict[str, Tensor], x: Value
) -> GroupedImages | None:
    return None if module.momentum is None else GroupedImages(_normalise_batch(module, own, stack.group(x)))


def _batch_norm_1d(stack: Stack, module: nn.BatchNorm1d, own: dict[str, Tensor], x: Value) -> Tensor | None:
    x = stack.rows(x)
    if module.momentum is None or x.ndim != 3:
        return None
    side_by_side = _normalise_batch(module, own, x.transpose(0, 1).flatten(1))
    return side_by_side.view(x.shape[1], stack.clients, -1).transpose(0, 1)


def _normalise_locally(
    stack: Stack, module: LocalResponseNorm, own: dict[str, Tensor], x: Value
) -> GroupedImages:
    """Within each client's own channels: clients go into the batch."""
    x = stack.group(x)
    batch, _, height, width = x.shape
    last = x.permute(0, 2, 3, 1)  # b h w K c, as it is in memory
    alone = module(last.reshape(batch, height, width * stack.clients, -1).movedim(3, 1))
    return GroupedImages(alone.movedim(1, 3).reshape(last.shape).movedim(3, 1))


def _dropped_out(stack: Stack, module: nn.Dropout, state: dict[str, Tensor], x: Value) -> Tensor:
    """Each client's mask from a stream of its own, drawn in memory order as torch does."""
    rows, keep = cast(Tensor, stack.rows(x)), 1 - module.p
    if keep in {0, 1}:
        return rows * keep
    like = compute_format(torch.empty(rows.shape[1:], dtype=rows.dtype))
    masks = [torch.empty_like(like).bernoulli_(keep, generator=own) for own in stack.streams]
    return rows * torch.stack(masks).to(rows.device).div_(keep)


_RULES: tuple[tuple[Value, bool, Callable[[Stack, Value, dict[str, Tensor], Value], Value | None]], ...] = (
    (ELEMENTWISE, False, _activate),
    (nn.Flatten, False, _flatten),
    (nn.Linear, False, _linear),
    (nn.Dropout, False, _dropped_out),
    (nn.Conv2d, True, _convolve),
    (nn.BatchNorm2d, True, _batch_norm_2d),
    (nn.BatchNorm1d, False, _batch_norm_1d),
    (_CHANNELWISE, True, _pool),
    (LocalResponseNorm, True, _normalise_locally),
)
"""Modules with a rule of their own, whether it is for images only, and the rule; None: it does not fit."""


class _Linear(torch.autograd.Function):
    """`x W' + b` for each client; the gradient of `W` comes in the memory order of `W`.

    Autograd's own comes transposed, and every step of an optimizer on it is several times slower.
    """

    @staticmethod
    @override
    def forward(ctx: Value, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        transposed = weight.transpose(1, 2)
        return torch.bmm(x, transposed) if bias is None else torch.baddbmm(bias[:, None], x, transposed)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Value, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        (g,), (x, weight) = gradients, ctx.saved_tensors
        kind = g.dtype  # under autocast the narrower one
        through = torch.bmm(g, weight.to(kind)).to(x.dtype) if ctx.needs_input_grad[0] else None
        along = torch.bmm(g.transpose(1, 2), x.to(kind)).to(weight.dtype)
        return through, along, g.sum(1).to(weight.dtype) if ctx.has_bias else None


def _normalise_batch(module: nn.BatchNorm1d | nn.BatchNorm2d, own: dict[str, Tensor], x: Tensor) -> Tensor:
    """Batch normalisation over all clients' channels; each row of running statistics as if alone."""
    # a view of statistics, which move; of parameters that do not learn, which are no stack in memory, a copy
    flat = {key: tensor.reshape(-1) if tensor.ndim > 1 else tensor for key, tensor in own.items()}
    if "num_batches_tracked" in own:
        own["num_batches_tracked"].add_(1)
    return F.batch_norm(
        x,
        flat.get("running_mean"),
        flat.get("running_var"),
        flat.get("weight"),
        flat.get("bias"),
        training=True,
        momentum=cast(float, module.momentum),
        eps=module.eps,
    )
