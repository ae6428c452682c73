"""Tensors with a shape and no values: what a server half has of what its client computes.

Code that only asks for their shapes runs with them as with any other. What is computed of them is unknown
too, and code that needs a value fails, in whatever pass: so no half computes with values that are made up.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.errors import RunFailed, first_line

_OF_A_SHAPE = frozenset(
    f"{name}{ending}"
    for name, endings in (
        *((name, ("_like",)) for name in ("zeros", "ones", "full", "empty", "rand", "randn", "randint")),
        *((f"new_{name}", ("",)) for name in ("zeros", "ones", "full", "empty", "tensor")),
    )
    for ending in endings
)
"""Functions that take no more than shape, type and device of the tensor they are called on."""


class ValuesElsewhere(RunFailed):
    """The server's half of a model needs values that only the client has."""


class Unknown(Tensor):
    """A tensor with a shape, a type and a device, and no values."""

    place: torch.device
    """The device that code is told."""

    @classmethod
    def of(cls, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Self:
        """A tensor of this shape and type that passes for one on `device`."""
        return cls._place(torch.empty(shape, dtype=dtype, device="meta"), device)

    @classmethod
    def _place(cls, tensor: Tensor, device: torch.device) -> Self:
        made = tensor.as_subclass(cls)
        made.place = device
        return made

    @classmethod
    @override
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Result of a function of such tensors: unknown where it is a tensor.

        Raises:
            ValuesElsewhere: the function needs values, or would write them into a tensor that has some.
        """
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = next(each for each in _tensors((args, kwargs)) if isinstance(each, Unknown))
        if func == Tensor.device.__get__:
            return first.place
        if name in ("cpu", "cuda"):
            return first
        with torch._C.DisableTorchFunctionSubclass():
            if name in _OF_A_SHAPE and isinstance(args[0], Unknown):
                known = torch.zeros((), dtype=first.dtype, device=first.place).expand(first.shape)
                return func(known, *args[1:], **kwargs)
            if "out" in kwargs or (_writes(name) and not isinstance(args[0], Unknown)):
                raise ValuesElsewhere(f"{name} would write into a tensor what only the client has")
            try:
                result = func(*_on_meta(args, name), **_on_meta(kwargs, name))
            except (RuntimeError, NotImplementedError, TypeError) as error:
                message = f"{name} needs what only the client has ({first_line(error)})"
                raise ValuesElsewhere(message) from error
        return _map_tensors(result, lambda each: cls._place(each, first.place))


def _writes(name: str) -> bool:
    """True if a function of this name changes its first argument."""
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__setitem__", "__set__") or name.startswith(("__i", "_foreach"))


def _map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The value with others in the place of its tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        inner = [_map_tensors(each, change) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    if isinstance(value, dict):
        return {key: _map_tensors(each, change) for key, each in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map_tensors(value, found.append)
    return found


def _on_meta(value: Any, name: str) -> Any:
    """Arguments of a function with their tensors and devices on `meta`."""
    if isinstance(value, torch.device) or (name == "to" and isinstance(value, str)):
        return torch.device("meta")
    if isinstance(value, Tensor):
        return value.detach().to("meta") if value.device.type != "meta" else value.as_subclass(Tensor)
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_on_meta(each, name) for each in value)
    if isinstance(value, dict):
        return {key: _on_meta(each, name) for key, each in value.items()}
    return value
