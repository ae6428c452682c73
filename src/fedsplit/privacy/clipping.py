"""Samples brought to a largest norm."""

import torch
from torch import Tensor


def clip_samples(x: Tensor, norm: float) -> Tensor:
    """Clip samples `x (b, ...)`: scale each down to a Euclidean norm of `norm` where it is larger."""
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)
    factors = (norm / norms).clamp(max=1).to(x.dtype)
    scaled: Tensor = x * factors.view(-1, *[1] * (x.ndim - 1))
    return scaled
