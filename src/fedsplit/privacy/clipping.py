"""Samples brought to a largest norm."""

import torch
from torch import Tensor


def clipped(x: Tensor, norm: float) -> Tensor:
    """Samples `x (b, ...)`, each scaled down to a Euclidean norm of `norm` where it has a larger one."""
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)
    factors = (norm / norms).clamp(max=1).to(x.dtype)
    scaled: Tensor = x * factors.view(-1, *[1] * (x.ndim - 1))
    return scaled
