"""The same distribution for every client."""

import numpy as np

from fedsplit.data.distributions.distribution import Distribution
from fedsplit.randomness import numpy_generator


class Iid(Distribution):
    """Shuffled, then cut into shards whose sizes differ by at most one."""

    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        order = numpy_generator(seed, "distribution").permutation(len(labels))
        return np.array_split(order, num_clients)
