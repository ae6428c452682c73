"""Distributions of data over clients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from fedsplit.errors import UserError


class Distribution(ABC):
    """Divides samples among clients by their labels: every sample lands on exactly one client.

    But for those that share samples.
    """

    by_owner: ClassVar[bool] = False
    """True if samples are divided by their owners, and not by their classes."""
    shifts_features: ClassVar[bool] = False
    """True if each client sees images transformed in its own way, see `seen_by`."""
    shares_samples: ClassVar[bool] = False
    """True if a sample may be of several clients: then there may be more clients than samples."""
    at_clients: ClassVar[bool] = False
    """True if clients bring their own samples, so that there is nothing to divide."""

    @abstractmethod
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> Sequence[np.ndarray]:
        """Indices of each client's samples; a `Partition`, where an array a client would take much memory.

        Args:
            labels: class of each sample, `(n,)`; its owner, where `by_owner`.
            num_clients: number of clients; at most `n`, unless clients share samples.
            seed: seed of the run; the same seed gives the same division.

        Raises:
            UserError: the division asked for is not possible with these labels.
        """

    def seen_by(self, client: int, pixels: Tensor, seed: int) -> Tensor:
        """A client's images as it sees them, uint8 `(n, h, w, c)`."""
        return pixels


def require_samples(key: str, each: int, samples: int, num_clients: int) -> None:
    """Raise where there are not so many samples for each client.

    Raises:
        UserError: says how many there are; `key` is that of the distribution.
    """
    if each * num_clients > samples:
        message = f"must be at most {samples // num_clients} ({samples} samples, {num_clients} clients)"
        raise UserError(f"distribution.{key}", each, message)
