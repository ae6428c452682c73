"""Weights of a model as they travel, and their average."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = dict[str, Tensor]
"""Parameters and buffers of a model by their names: what `nn.Module.state_dict` gives."""


def average(weights: Sequence[Weights], sample_counts: Sequence[int]) -> Weights:
    """Average in proportion to sample counts.

    Floating-point tensors (BatchNorm statistics too) are averaged in float32 or wider; of integer
    tensors (BatchNorm's counters) the maximum is taken.
    """
    total = sum(sample_counts)
    averaged: Weights = {}
    for name, first in weights[0].items():
        values = [each[name] for each in weights]
        if not first.is_floating_point():
            averaged[name] = torch.stack(values).amax(0)
            continue
        mean = first.to(torch.promote_types(first.dtype, torch.float32)) * (sample_counts[0] / total)
        for value, count in zip(values[1:], sample_counts[1:], strict=True):
            mean.add_(value, alpha=count / total)
        averaged[name] = mean.to(first.dtype)
    return averaged


def num_bytes(weights: Weights) -> int:
    """Bytes of all values, as they are held in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def is_finite(weights: Weights) -> bool:
    """Whether every value is a number."""
    # A sum shows what is not finite in one pass; only where it overflows must each value be looked at.
    return all(
        bool(torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all())
        for tensor in weights.values()
        if tensor.is_floating_point()
    )
