"""Distance correlation of the samples of a batch, as a loss."""

import torch
from torch import Tensor


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Distance correlation of `x (b, ...)` and `z (b, ...)`, from 0 to 1; 0 where one of them is constant.

    This is the usual estimate, which is biased: near 1 for independent data of many dimensions. It is a
    loss, not a measure of what leaks.

    Source: G. J. Szekely, M. L. Rizzo and N. K. Bakirov, "Measuring and testing dependence by correlation of
    distances", 2007.
    """
    a, b = _centred_distances(x), _centred_distances(z)
    covariance, variances = (a * b).mean(), (a * a).mean() * (b * b).mean()
    square = covariance / _root(variances).clamp_min(_TINY)
    return _root(square)


_TINY = 1e-30


def _centred_distances(x: Tensor) -> Tensor:
    """Distances between samples, `(b, b)`, less the means of rows and columns."""
    flat = x.flatten(1)
    flat = flat - flat.mean(0)  # so that less is lost in the difference of squares
    squares = (flat * flat).sum(1)
    apart = 1 - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    distances = _root((squares[:, None] + squares - 2 * flat @ flat.T) * apart)
    return distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()


def _root(x: Tensor) -> Tensor:
    """Square root, 0 of what is not above 0, with a gradient of 0 there."""
    above = x > _TINY
    return torch.where(above, x, 1.0).sqrt() * above
