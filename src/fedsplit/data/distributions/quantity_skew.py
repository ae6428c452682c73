"""Clients with much and with little data, all of the same distribution."""

import numpy as np
from typing_extensions import override

from fedsplit.config.values import NonNegativeFloat, PositiveInt
from fedsplit.data.distributions.distribution import Distribution, require_samples
from fedsplit.randomness import numpy_generator


class QuantitySkew(Distribution):
    """Sizes follow a power law: the k-th largest client has a share proportional to `k ** -exponent`.

    Which client is the k-th is drawn, and so are its samples.

    Args:
        exponent: 0 is even; 1 is Zipf's law.
        min_samples: samples that every client has before the rest is divided.
    """

    def __init__(self, *, exponent: NonNegativeFloat, min_samples: PositiveInt) -> None:
        self.exponent, self.min_samples = exponent, min_samples

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        require_samples("min_samples", self.min_samples, len(labels), num_clients)
        rest = len(labels) - self.min_samples * num_clients
        draw = numpy_generator(seed, "distribution")
        shares = np.arange(1, num_clients + 1, dtype=np.float64) ** -self.exponent
        ends = np.round(np.cumsum(shares / shares.sum()) * rest).astype(np.int64)
        sizes = np.diff(ends, prepend=0) + self.min_samples
        parts = np.split(draw.permutation(len(labels)), np.cumsum(sizes)[:-1])
        return [parts[rank] for rank in draw.permutation(num_clients)]
