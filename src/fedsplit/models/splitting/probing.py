"""Probes of a model: in which order its submodules run in a pass, and what they give."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedsplit.models.splitting.cuts import evaluating

_LENGTHS, _SAMPLES = (7, 5), (2, 3)
"""Lengths and samples of the two probes: primes, whose products tell the factors of a dimension."""


@dataclass
class Calls:
    """The calls of one submodule, in the order in which they ended.

    Args:
        starts: number of events before each call.
        ends: number of events up to and with the end of each call; an event is a start or an end.
        outputs: outputs that each call gave, with `meta` tensors in the place of tensors.
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    outputs: list[object] = field(default_factory=list)


@dataclass(frozen=True)
class Size:
    """A dimension of a tensor: `factor * samples**i * length**j`."""

    factor: int
    i: int
    j: int

    def of(self, samples: int, length: int) -> int:
        """The dimension in a pass of so many samples of this length."""
        return int(self.factor * samples**self.i * length**self.j)


class UnclearShape(Exception):
    """A shape that follows neither the number of samples nor their length."""


def is_text(example: Tensor) -> bool:
    """True if a batch of inputs is token ids `(b, t)`."""
    return example.dim() == 2 and not example.is_floating_point()


def probes(example: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches of different size, of text also of different length, made of the rows of `example`."""
    if is_text(example):
        return resize_batch(example, _SAMPLES[0], _LENGTHS[0]), resize_batch(
            example, _SAMPLES[1], _LENGTHS[1]
        )
    return resize_batch(example, _SAMPLES[0]), resize_batch(example, _SAMPLES[1])


def resize_batch(example: Tensor, samples: int, length: int | None = None) -> Tensor:
    """Make a batch of another size from the rows of `example`, and from their first positions, repeated."""
    rows = torch.arange(samples, device=example.device) % len(example)
    if length is None:
        return example[rows]
    return example[rows][:, torch.arange(length, device=example.device) % example.shape[1]]


def probe(module: nn.Module, x: Tensor, note: Callable[[], None] = lambda: None) -> dict[str, Calls]:
    """The calls of every submodule that runs in a pass, by name; that of the module itself is empty.

    Args:
        note: is called at every event, after it was counted.
    """
    found: dict[str, Calls] = {}
    count = 0

    def count_call() -> int:
        nonlocal count
        count += 1
        note()
        return count

    def watch(name: str, part: nn.Module) -> None:
        calls = Calls()

        def start(*_: object) -> None:
            calls.starts.append(count_call() - 1)

        def end(_: nn.Module, __: object, output: object) -> None:
            found[name] = calls
            calls.ends.append(count_call())
            calls.outputs.append(map_tensors(output, lambda each: torch.empty_like(each, device="meta")))

        handles.extend((part.register_forward_pre_hook(start), part.register_forward_hook(end)))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name, part in module.named_modules():
            watch(name, part)
        with evaluating(module):
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def map_tensors(output: object, change: Callable[[Tensor], object]) -> object:
    """Replace the tensors in a module's output by other values; types of containers stay."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        inner: list[Any] = [map_tensors(each, change) for each in output]
        return type(output)(*inner) if hasattr(output, "_fields") else type(output)(inner)
    if isinstance(output, dict):
        return type(output)(**{key: map_tensors(each, change) for key, each in output.items()})
    return output


def tensors_of(output: object) -> list[Tensor]:
    """The tensors in what a module gave."""
    found: list[Tensor] = []
    map_tensors(output, found.append)
    return found


def sizes(first: Tensor, second: Tensor) -> tuple[Size, ...]:
    """The dimensions of a tensor, from what the two probes gave.

    Raises:
        UnclearShape: one of them follows neither the number of samples nor the length.
    """
    if first.dim() != second.dim():
        raise UnclearShape(f"{tuple(first.shape)} and {tuple(second.shape)}")
    return tuple(_size(*pair) for pair in zip(first.shape, second.shape, strict=True))


def _size(first: int, second: int) -> Size:
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)):
        units = [n**i * t**j for n, t in zip(_SAMPLES, _LENGTHS, strict=True)]
        if not first % units[0] and not second % units[1] and first // units[0] == second // units[1]:
            return Size(first // units[0], i, j)
    raise UnclearShape(f"{first} and {second}")
