"""Gradients of single samples, clipped and added up."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import grad, vmap

LossOfSample: TypeAlias = Callable[..., Tensor]
"""Loss of one sample, from weights of each model and from what is given of the sample."""


def clipped_gradient_sum(
    loss: LossOfSample, weights: Sequence[Mapping[str, Tensor]], *samples: Tensor, clip: float | None
) -> Tensor:
    """Sum over samples of gradients, each clipped to a Euclidean norm over all weights, flattened: `(p,)`.

    Args:
        loss: loss of one sample.
        weights: weights of each of some models, by which it is differentiated.
        samples: inputs, labels and what else `loss` takes, `(b, ...)` each.
        clip: largest norm of a sample's gradient; None leaves them.
    """
    found = vmap(grad(loss), in_dims=(None, *[0] * len(samples)))(weights, *samples)
    each = [gradient for model in found for gradient in model.values()]
    if clip is None:
        return torch.cat([gradient.sum(0).flatten() for gradient in each])
    squares = torch.stack([gradient.double().flatten(1).square().sum(1) for gradient in each]).sum(0)
    factors = (clip / squares.sqrt()).clamp(max=1)
    return torch.cat([torch.tensordot(factors.to(g.dtype), g, 1).flatten() for g in each])
