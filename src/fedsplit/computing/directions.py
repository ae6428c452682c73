"""Gradients of outputs along directions: vector-Jacobian products."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override


def gradients_along(
    outputs: Sequence[tuple[Tensor, Tensor | None]], inputs: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The sum of gradients of outputs with respect to inputs, to the bit that of `autograd.grad`.

    That imports sympy, a third of a second, to compare shapes when it is given directions.

    Args:
        outputs: each with the direction along which its gradient is taken, in its shape; None beside a
            number.
    """
    numbers = [output if along is None else _number(output, along) for output, along in outputs]
    return torch.autograd.grad(numbers, inputs)


def _number(output: Tensor, along: Tensor) -> Tensor:
    assert output.shape == along.shape
    return cast(Tensor, _Number.apply(output, along))  # type: ignore[no-untyped-call]


class _Number(torch.autograd.Function):
    """A number whose gradient with respect to `output` is `along`."""

    @staticmethod
    @override
    def forward(ctx: Any, output: Tensor, along: Tensor) -> Tensor:
        ctx.along = along  # not saved with `save_for_backward`: activations are counted there
        return output.new_zeros(())

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        return ctx.along, None
