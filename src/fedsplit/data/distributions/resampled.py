"""Clients that share samples: a population of any size over a data set of any size."""

import numpy as np
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.partition import Draws
from fedsplit.machine.allowance import claim


class Resampled(Distribution):
    """Every client draws its samples from all, evenly and with replacement, as a function of seed and client.

    So there may be more clients than samples, and none is drawn before a client takes part.

    Source: the bootstrap of B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Args:
        samples_per_client: samples that a client draws; the same one may come more than once.
    """

    shares_samples = True

    def __init__(self, *, samples_per_client: PositiveInt) -> None:
        self.samples_per_client = samples_per_client

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> Draws:
        each = self.samples_per_client
        claim("num_clients", num_clients, 50.0 * num_clients, f"lists of {num_clients} clients")
        claim("distribution.samples_per_client", each, 50.0 * each, f"{each} samples of a client")
        return Draws(len(labels), num_clients=num_clients, each=each, seed=seed)
