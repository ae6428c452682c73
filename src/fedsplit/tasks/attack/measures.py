"""Measures of how well images were reconstructed, on pixels from 0 to 1, and of how far tensors depend."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_MSE = 1e-10
"""Mean squared errors below it count as this much: an exact reconstruction has 100 dB."""
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class SampleMean:
    """A mean over samples, and its standard error; None for a single sample."""

    mean: float
    standard_error: float | None

    @classmethod
    def of(cls, values: Tensor) -> "SampleMean":
        """Take the mean of values `(n,)`."""
        values = values.double()
        error = float(values.std()) / sqrt(len(values)) if len(values) > 1 else None
        return cls(float(values.mean()), error)


def psnr(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image `(n, c, h, w)` in dB, `(n,)`; at most 100.

    The peak is 1 and the error is averaged over all values of an image: `-10 log10(mse)`.
    """
    errors = (originals.double() - reconstructions.double()).square().flatten(1).mean(1)
    return -10 * errors.clamp_min(_LEAST_MSE).log10()


def ssim(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity of each image `(n, c, h, w)`, `(n,)`: the mean over windows and channels.

    Windows are Gaussian, 11 pixels wide with a standard deviation of 1.5, and lie whole inside the image; of
    images below 11 pixels the window is the largest odd number that fits.

    Source: Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    Transactions on Image Processing 13(4), 2004.
    """
    a, b = originals.double(), reconstructions.double()
    window = ssim_window(min(a.shape[-2:]))
    places = torch.arange(window, dtype=torch.float64, device=a.device) - (window - 1) / 2
    weights = (-places.square() / (2 * _SIGMA**2)).exp()
    weights /= weights.sum()
    channels = a.shape[1]
    rows, columns = (weights.view(shape).expand(channels, 1, *shape) for shape in ((window, 1), (1, window)))

    def local_mean(x: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(x, rows, groups=channels), columns, groups=channels)

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a.square()
    variance_b = local_mean(b * b) - mean_b.square()
    covariance = local_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _K1**2) / (mean_a.square() + mean_b.square() + _K1**2)
    structure = (2 * covariance + _K2**2) / (variance_a + variance_b + _K2**2)
    return (luminance * structure).flatten(1).mean(1)


def ssim_window(side: int) -> int:
    """The width of the window for images of this many pixels a side."""
    return min(_WINDOW, side if side % 2 else side - 1)


def reidentify(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """True where the original that a reconstruction is nearest to is its own, bool `(n,)`.

    Nearest is the largest cosine, after the mean of all originals was taken from both. A reconstruction that
    is that mean is nearest to none.
    """
    originals, reconstructions = originals.double().flatten(1), reconstructions.double().flatten(1)
    mean = originals.mean(0)
    cosines = functional.normalize(reconstructions - mean) @ functional.normalize(originals - mean).T
    own = torch.arange(len(cosines), device=cosines.device)
    return (cosines.argmax(1) == own) & (cosines.diagonal() > 0)


def distance_correlation(x: Tensor, z: Tensor) -> float:
    """The squared distance correlation of samples `x (n, ...)` and `z (n, ...)`, bias-corrected; n is over 3.

    Its mean is 0 for independent samples, so it may be negative, and it is 1 where `z` is `x` but for a
    shift, a scale and a rotation. (The usual estimate, without the correction, is near 1 for independent
    samples of thousands of dimensions.) By definition 0 where all samples of one of the two are the same.

    Source: G. J. Szekely and M. L. Rizzo, "The distance correlation t-test of independence in high
    dimension", Journal of Multivariate Analysis 117, 2013; in the form of their "Partial distance correlation
    with methods for dissimilarities", Annals of Statistics 42(6), 2014.
    """
    a, b = _centred_distances(x), _centred_distances(z)
    scale = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / sqrt(scale) if scale > 0 else 0.0


def _centred_distances(x: Tensor) -> Tensor:
    """Distances between samples, of which those of one sample to all others add up to 0."""
    x = x.double().flatten(1)
    distances = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0.0)
    n = len(x)
    rows = distances.sum(1) / (n - 2)
    centred = distances - rows[:, None] - rows[None, :] + distances.sum() / ((n - 1) * (n - 2))
    centred.fill_diagonal_(0.0)
    return centred
