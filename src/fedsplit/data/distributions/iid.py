"""The same distribution for every client."""

import numpy as np
from typing_extensions import override

from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.partition import Pieces
from fedsplit.randomness import numpy_generator


class Iid(Distribution):
    """Shuffled, then cut into shards whose sizes differ by at most one."""

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> Pieces:
        order = numpy_generator(seed, "distribution").permutation(len(labels))
        least, larger = divmod(len(labels), num_clients)
        return Pieces(order, np.full(num_clients, least) + (np.arange(num_clients) < larger))
