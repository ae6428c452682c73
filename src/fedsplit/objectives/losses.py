"""Losses as steps take them, of the batch of one client or of the batches of many at once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Losses(ABC):
    """Loss of a batch: an `Objective` gives that of one client, `LossesOfMany` those of K clients.

    Which of the two a step takes is said where the step is; no shape is taken for a hint.
    """

    @abstractmethod
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the terms of a batch, 0-d; of K clients one each, `(K,)`."""

    @abstractmethod
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss summed over all terms, 0-d."""

    def targets(self, y: Tensor) -> Tensor | None:
        """Positions whose outputs the loss depends on, bool, in the shape of `y`; None where it is all.

        A model then needs to give those alone, `(n, ...)`, and every method that takes outputs takes these.
        """
        return None

    @abstractmethod
    def counts(self, y: Tensor) -> Sequence[int]:
        """Number of terms of each client's batch."""

    def per_term(self, gradients: Tensor, y: Tensor) -> Tensor:
        """Gradients of mean losses from `gradients (b, ...)` or `(K, b, ...)` of the total one."""
        counts = [max(count, 1) for count in self.counts(y)]  # without a term, gradients are zero
        if len(set(counts)) == 1:
            return gradients / counts[0]
        divisors = torch.tensor(counts, dtype=gradients.dtype, device=gradients.device)
        return gradients / divisors.view(-1, *[1] * (gradients.ndim - 1))
