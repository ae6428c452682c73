"""Equal shards of samples sorted by their class."""

import numpy as np
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.data.distributions.distribution import Distribution, require_samples
from fedsplit.randomness import numpy_generator


class Pathological(Distribution):
    """Samples are sorted by class and cut into equal shards; each client is dealt some of them at random.

    Most clients hold as many classes as shards; a shard may span two.

    Source: B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    2017, section 3.
    """

    def __init__(self, *, shards_per_client: PositiveInt) -> None:
        self.shards_per_client = shards_per_client

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        require_samples("shards_per_client", self.shards_per_client, len(labels), num_clients)
        shards = self.shards_per_client * num_clients
        draw = numpy_generator(seed, "distribution")
        mixed = draw.permutation(len(labels))  # the order of samples within a class is random
        pieces = np.array_split(mixed[np.argsort(labels[mixed], kind="stable")], shards)
        dealt = draw.permutation(shards).reshape(num_clients, self.shards_per_client)
        return [np.concatenate([pieces[shard] for shard in hand]) for hand in dealt]
