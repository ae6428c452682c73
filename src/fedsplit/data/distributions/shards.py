"""A fixed number of classes a client."""

import numpy as np
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.errors import UserError
from fedsplit.randomness import numpy_generator


class Shards(Distribution):
    """Each client gets pieces of `classes_per_client` different classes.

    As the label shards of B. McMahan et al., "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", 2017, but a piece never spans two classes, so the number of classes is exact.
    The classes are dealt round and round in a shuffled order, hence as evenly as can be.
    """

    def __init__(self, *, classes_per_client: PositiveInt) -> None:
        self.classes_per_client = classes_per_client

    @override
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        draw = numpy_generator(seed, "distribution")
        classes = draw.permutation(np.unique(labels))
        k = self.classes_per_client
        if k > len(classes) or k * num_clients < len(classes):
            least = -(-len(classes) // num_clients)
            raise UserError(
                "distribution.classes_per_client",
                k,
                f"must be from {least} to {len(classes)} ({len(classes)} classes, {num_clients} clients; "
                "fewer would leave a class with no client)",
            )
        # Dealing k consecutive classes of a cycle to each client: all different, and none left out.
        dealt = [
            [classes[(client * k + i) % len(classes)] for i in range(k)] for client in range(num_clients)
        ]
        shards: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
        for label in classes:
            owners = [client for client in range(num_clients) if label in dealt[client]]
            members = draw.permutation(np.flatnonzero(labels == label))
            if len(members) < len(owners):
                raise UserError(
                    "num_clients",
                    num_clients,
                    f"class {label} has {len(members)} samples for {len(owners)} clients",
                )
            for owner, part in zip(owners, np.array_split(members, len(owners)), strict=True):
                shards[owner].append(part)
        return [np.concatenate(shard) for shard in shards]
