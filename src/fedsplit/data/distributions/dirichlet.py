"""Label skew drawn from a Dirichlet distribution."""

import numpy as np

from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.data.distributions.distribution import Distribution, require_samples
from fedsplit.errors import UserError
from fedsplit.randomness import numpy_generator


class Dirichlet(Distribution):
    """Each class is divided among the clients in proportions drawn from Dirichlet(alpha).

    Drawn again, up to `attempts` times, until the smallest client has `min_samples`.

    Source: T.-M. H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data
    Distribution for Federated Visual Classification", 2019; the redraw as in Q. Li et al.,
    "Federated Learning on Non-IID Data Silos", 2022.

    Args:
        alpha: concentration; small is skewed, large is even.
        min_samples: fewest samples a client may get.
        attempts: how often to draw before giving up.
        self_balancing: of the classes that are divided after a client has its even share of all samples,
            it gets none (M. Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural
            Networks", 2019).
    """

    def __init__(
        self,
        *,
        alpha: PositiveFloat,
        min_samples: PositiveInt,
        attempts: PositiveInt,
        self_balancing: bool = False,
    ) -> None:
        self.alpha, self.min_samples, self.attempts = alpha, min_samples, attempts
        self.self_balancing = self_balancing

    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        require_samples("min_samples", self.min_samples, len(labels), num_clients)
        smallest = 0
        for attempt in range(self.attempts):
            shards = self._draw(labels, num_clients, numpy_generator(seed, "distribution", step=attempt))
            fewest = min(map(len, shards))
            if fewest >= self.min_samples:
                return shards
            smallest = max(smallest, fewest)
        raise UserError(
            "distribution.min_samples",
            self.min_samples,
            f"not met in {self.attempts} draws with alpha={self.alpha} (the best had {smallest}): "
            "lower it, raise distribution.alpha or take fewer clients",
        )

    def _draw(self, labels: np.ndarray, num_clients: int, draw: np.random.Generator) -> list[np.ndarray]:
        shards: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
        for label in np.unique(labels):
            members = draw.permutation(np.flatnonzero(labels == label))
            shares = draw.dirichlet(np.full(num_clients, self.alpha))
            if self.self_balancing:
                held = np.array([sum(map(len, shard)) for shard in shards])
                open_to = held < len(labels) / num_clients  # never none: not all samples are divided yet
                wanted = shares * open_to
                # Of a small alpha a single client may want all of a class, and have its share already.
                shares = wanted / wanted.sum() if wanted.sum() > 0 else open_to / open_to.sum()
            ends = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for shard, part in zip(shards, np.split(members, ends), strict=True):
                shard.append(part)
        return [np.concatenate(shard) for shard in shards]
