"""Label skew drawn from a Dirichlet distribution."""

import numpy as np
from typing_extensions import override

from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.data.distributions.distribution import Distribution, require_samples
from fedsplit.data.partition import Pieces
from fedsplit.randomness import numpy_generator

_HOPELESS_SHORT, _HOPELESS_AT_FIRST = 15, 35
"""Clients short of samples, a draw and once: see `_is_hopeless`."""
_SHARES, _FEWEST_DRAWS = 1_000_000, 10
"""Shares of a class that are drawn again at most, in all draws; and draws for any number of clients."""


class Dirichlet(Distribution):
    """Each class is divided among the clients in proportions drawn from Dirichlet(alpha).

    Drawn again, up to `attempts` times, until the smallest client has `min_samples`. Where no draw gives
    that, or so many clients are short of it that none will, the first draw stands, and each client that is
    short is given what it lacks from what others have beyond `min_samples`, drawn evenly. Of more than a
    thousand clients there are fewer draws: 10 for 100,000.

    Source: T.-M. H. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data
    Distribution for Federated Visual Classification", 2019; the redraw as in Q. Li et al.,
    "Federated Learning on Non-IID Data Silos", 2022.

    Args:
        alpha: concentration; small is skewed, large is even.
        min_samples: fewest samples a client may get.
        attempts: number of draws before clients are given what they lack.
        self_balancing: True to give a client none of the classes that are divided after it has its even
            share of all samples (M. Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural
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

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> Pieces:
        require_samples("min_samples", self.min_samples, len(labels), num_clients)
        all_short = 0
        for attempt in range(min(self.attempts, max(_SHARES // num_clients, _FEWEST_DRAWS))):
            draw = numpy_generator(seed, "distribution", step=attempt)
            samples, clients = self._draw(labels, num_clients, draw)
            short = int((np.bincount(clients, minlength=num_clients) < self.min_samples).sum())
            if not short:
                return Pieces.group(samples, clients, num_clients)
            all_short += short
            if _is_hopeless(all_short, attempt + 1):
                break
        samples, clients = self._draw(labels, num_clients, numpy_generator(seed, "distribution", step=0))
        clients = self._filled_up(clients, num_clients, numpy_generator(seed, "filling up"))
        return Pieces.group(samples, clients, num_clients)

    def _draw(
        self, labels: np.ndarray, num_clients: int, draw: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples, one class after the other, and the client that each is given."""
        samples, clients = [], []
        held = np.zeros(num_clients, dtype=np.int64)
        for label in np.unique(labels):
            members = draw.permutation(np.flatnonzero(labels == label))
            shares = draw.dirichlet(np.full(num_clients, self.alpha))
            if self.self_balancing:
                open_to = held < len(labels) / num_clients  # never none: not all samples are divided yet
                wanted = shares * open_to
                # With a small alpha a single client may want all of a class, and have its share already.
                shares = wanted / wanted.sum() if wanted.sum() > 0 else open_to / open_to.sum()
            ends = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            sizes = np.diff(ends, prepend=0, append=len(members))
            samples.append(members)
            clients.append(np.repeat(np.arange(num_clients), sizes))
            held += sizes
        return np.concatenate(samples), np.concatenate(clients)

    def _filled_up(self, clients: np.ndarray, num_clients: int, draw: np.random.Generator) -> np.ndarray:
        """Clients of samples once those that are short have `min_samples`; there are enough samples."""
        sizes = np.bincount(clients, minlength=num_clients)
        lacking = np.maximum(self.min_samples - sizes, 0)
        # Each client keeps min_samples, drawn at random; as many as are lacking are drawn from the rest.
        order = draw.permutation(len(clients))
        order = order[np.argsort(clients[order], kind="stable")]
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        spare = draw.permutation(order[rank >= self.min_samples])
        filled = clients.copy()
        filled[spare[: lacking.sum()]] = np.repeat(np.arange(num_clients), lacking)
        return filled


def _is_hopeless(short: int, draws: int) -> bool:
    """True if so many clients were short in all draws so far that a thousand more will not do.

    Their number is nearly Poisson: where its mean is 15, it is 0 in one draw of three million.
    """
    return short > _HOPELESS_SHORT * draws + _HOPELESS_AT_FIRST
