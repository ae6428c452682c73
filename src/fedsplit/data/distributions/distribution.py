"""What a distribution of data over clients is."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np


class Distribution(ABC):
    """Divides samples among clients by their labels: every sample lands on exactly one client."""

    at_clients: ClassVar[bool] = False
    """Whether clients bring their samples, and there is nothing to divide."""

    @abstractmethod
    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        """Indices of each client's samples.

        Args:
            labels: class of each sample, `(n,)`.
            num_clients: at most `n`.
            seed: of the run; the same seed gives the same division.

        Raises:
            UserError: the division asked for is not possible with these labels.
        """
