"""Weights of a model as they travel, and their average."""

from collections.abc import Sequence
from typing import TypeAlias, overload

import torch
from torch import Tensor
from typing_extensions import override

Weights: TypeAlias = dict[str, Tensor]
"""Parameters and buffers of a model by their names: what `nn.Module.state_dict` gives."""


_BLOCK = 1 << 16
"""Values averaged at a time, so that the sum stays in a processor's cache while clients are added to it."""


class StackedWeights(Sequence[Weights]):
    """Weights of clients as stacks: tensors `(k, ...)` with a row a client.

    Args:
        stacks: stacks, each with the positions of its rows in this sequence, and tensors by name.
    """

    def __init__(self, stacks: Sequence[tuple[Sequence[int], Weights]]) -> None:
        self.stacks = stacks
        self._places = {
            position: (row, tensors)
            for positions, tensors in stacks
            for row, position in enumerate(positions)
        }

    @override
    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Weights: ...
    @overload
    def __getitem__(self, index: slice) -> list[Weights]: ...
    @override
    def __getitem__(self, index: int | slice) -> Weights | list[Weights]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if index not in self._places:
            raise IndexError(index)
        row, tensors = self._places[index]
        return {name: tensor[row] for name, tensor in tensors.items()}


def average(weights: Sequence[Weights], sample_counts: Sequence[int]) -> Weights:
    """Average in proportion to sample counts.

    Floating-point tensors (BatchNorm statistics too) are averaged in float32 or wider; of integer
    tensors (BatchNorm's counters) the maximum is taken.
    """
    total = sum(sample_counts)
    shares = [count / total for count in sample_counts]
    if isinstance(weights, StackedWeights):
        return _average_of_rows(weights, shares)
    averaged: Weights = {}
    for name, first in weights[0].items():
        values = [each[name] for each in weights]
        averaged[name] = _mean(values, shares) if first.is_floating_point() else torch.stack(values).amax(0)
    return averaged


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Block by block: each value is read once, and sums do not leave the cache."""
    first = values[0]
    mean = torch.empty(
        first.shape, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device
    )
    block = _BLOCK if first.device.type == "cpu" else max(first.numel(), 1)
    flat = [torch.split(value.reshape(-1), block) for value in values]
    for place, (part, *others) in zip(
        torch.split(mean.view(-1), block), zip(*flat, strict=True), strict=True
    ):
        torch.mul(part.to(place.dtype), shares[0], out=place)
        for other, share in zip(others, shares[1:], strict=True):
            place.add_(other, alpha=share)
    return mean.to(first.dtype)


def _average_of_rows(weights: StackedWeights, shares: Sequence[float]) -> Weights:
    """One product of the shares with each stack's rows."""
    averaged: Weights = {}
    for positions, tensors in weights.stacks:
        for name, rows in tensors.items():
            if rows.is_floating_point():
                wide = torch.promote_types(rows.dtype, torch.float32)
                weight = torch.tensor([shares[p] for p in positions], dtype=wide, device=rows.device)
                part = (weight @ rows.reshape(len(rows), -1).to(wide)).view(rows.shape[1:])
                averaged[name] = averaged[name].add_(part) if name in averaged else part
            else:
                part = rows.amax(0)
                averaged[name] = torch.maximum(averaged[name], part) if name in averaged else part
    return {name: tensor.to(weights.stacks[0][1][name].dtype) for name, tensor in averaged.items()}


def is_finite(weights: Weights) -> bool:
    """True if every value of the weights is finite."""
    floating = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    if not floating:
        return True
    # Sums show what is not finite in one pass; only where one overflows must each value be looked at.
    if torch.stack([tensor.sum().double() for tensor in floating]).isfinite().all():
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in floating)


def place_like(weights: Weights, like: Weights) -> Weights:
    """Move weights, each to the device where `like` has its own."""
    return {name: weights[name].to(own.device) for name, own in like.items()}
