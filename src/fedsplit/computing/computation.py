"""How a module's passes are computed: in which precision, and compiled or not."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]

_AUTOCAST, _COMPILED = "fedsplit_autocast", "fedsplit_compiled"


def set_computation(module: nn.Module, precision: Precision, *, compiled: bool) -> None:
    """Decide how training passes through `module` are computed from now on.

    Args:
        precision: `bf16` runs its passes under autocast; weights, messages and optimizers stay float32.
        compiled: True if `torch.compile` makes one program of a pass and one of its gradient.
    """
    setattr(module, _AUTOCAST, torch.bfloat16 if precision == "bf16" else None)

    setattr(module, _COMPILED, torch.compile(partial(_pass, module)) if compiled else None)


@contextmanager
def eagerly(*modules: nn.Module) -> Iterator[None]:
    """Leave compiled passes through these modules alone meanwhile: they would be compiled for other sizes."""
    compiled = [getattr(module, _COMPILED, None) for module in modules]
    for module in modules:
        setattr(module, _COMPILED, None)
    try:
        yield
    finally:
        for module, own in zip(modules, compiled, strict=True):
            setattr(module, _COMPILED, own)


def set_float32(precision: Precision) -> None:
    """Let float32 products on a GPU be exact, or rounded to TF32, in the whole process."""
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.fp32_precision = rounding


def autocast(module: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """The context that passes through `module` run in."""
    dtype = getattr(module, _AUTOCAST, None)
    return torch.autocast(device.type, dtype) if dtype is not None else nullcontext()


def _pass(
    module: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, **further: Tensor
) -> Tensor:
    output: Tensor = functional_call(module, (parameters, buffers), (x,), further)
    return output


def call(
    module: nn.Module,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
    x: Tensor,
    at: Tensor | None = None,
) -> Tensor:
    """A pass through `module` with these weights; the output has the type that models compute in.

    Args:
        at: positions whose outputs are wanted, see `outputs_at`.
    """
    run: Callable[..., Tensor] = getattr(module, _COMPILED, None) or partial(_pass, module)
    with autocast(module, x.device):
        return outputs_at(partial(run, parameters, buffers), module, x, at).to(computed_type(x))


def outputs_at(run: Callable[..., Tensor], module: nn.Module, x: Tensor, at: Tensor | None) -> Tensor:
    """Outputs of a pass, or those at some positions alone.

    A module that says by `gives_outputs_at` that it can computes no others.

    Args:
        run: the pass through the module.
        x: its inputs, `(b, t, ...)`.
        at: positions whose outputs are wanted, bool `(b, t)`, which are then `(n, ...)`; None: all.
    """
    if at is None:
        return run(x)
    return run(x, at=at) if getattr(module, "gives_outputs_at", False) else run(x)[at]


def computed_type(x: Tensor) -> torch.dtype:
    """Type of the outputs of a module whose inputs are `x`: theirs, or the default where they are tokens."""
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()
