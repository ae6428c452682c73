"""Clients are who the data come from."""

import numpy as np
from typing_extensions import override

from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.partition import Pieces
from fedsplit.errors import UserError
from fedsplit.randomness import numpy_generator


class Natural(Distribution):
    """Each owner's samples (a writer's, ...) stay together on one client.

    Owners are dealt in a drawn order, each to the client that has fewest samples so far.
    """

    by_owner = True

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> Pieces:
        owners, sizes = np.unique(labels, return_counts=True)
        if num_clients > len(owners):
            raise UserError(
                "num_clients", num_clients, f"must be at most {len(owners)}, the number of owners of samples"
            )
        order = numpy_generator(seed, "distribution").permutation(len(owners))
        held = np.zeros(num_clients, dtype=np.int64)
        client_of = np.empty(len(owners), dtype=np.int64)
        for owner in order:
            client_of[owner] = int(held.argmin())
            held[client_of[owner]] += sizes[owner]
        by_sample = client_of[np.searchsorted(owners, labels)]
        return Pieces.group(np.arange(len(labels)), by_sample, num_clients)
