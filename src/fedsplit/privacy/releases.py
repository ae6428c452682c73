"""How often each sample of a run was released, counted from the order of batches."""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fedsplit.data.batches import ClientBatches


class Counts(NamedTuple):
    """Releases of some samples so far, `(n,)` each, of all rounds.

    Args:
        smashed: number of times that smashed data left a client.
        gradients: number of steps that moved weights which left a client.
    """

    smashed: Tensor
    gradients: Tensor


class Releases:
    """Releases of all samples that clients train on. A sample that several clients hold counts for each.

    Args:
        batches: function from a client to its batches.
        samples: number of all clients' samples together; None where each client has samples of its own.
    """

    def __init__(self, batches: Callable[[int], ClientBatches], samples: int | None) -> None:
        self._batches, self._samples = batches, samples
        self._counts: dict[int | None, Counts] = {}

    def add(self, round: int, client: int, *, smashed: Collection[int], gradients: Collection[int]) -> None:
        """Count those local steps of a client in a round by which its samples left it."""
        own = self._batches(client)
        whose, size = (client, own.samples) if self._samples is None else (None, self._samples)
        if whose not in self._counts:
            self._counts[whose] = Counts(*(torch.zeros(size, dtype=torch.int64) for _ in Counts._fields))
        for total, steps in zip(self._counts[whose], (smashed, gradients), strict=True):
            if steps:
                total.index_add_(0, own.indices, own.appearances(round, steps))

    def summary(self) -> dict[str, float]:
        """Most releases of a sample's smashed data, and the mean over those that were released."""
        counts = torch.cat([each.smashed for each in self] or [torch.zeros(0)])
        released = counts[counts > 0].double()
        if not len(released):
            return {"max": 0, "mean": 0.0}
        return {"max": int(released.amax()), "mean": float(released.mean())}

    def __iter__(self) -> Iterator[Counts]:
        return iter(self._counts.values())
