"""What training and test data are to everything above them, be they images or text."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Samples(ABC):
    """Labelled samples of one split: inputs and labels by index.

    Padding is part of the contract: inputs of samples of different lengths are padded on the right to the
    longest of the batch, token inputs with `PAD_INPUT`, their labels with the objective's padding label.
    """

    owners: Tensor | None
    """Whose each sample is, int64 `(n,)`; None where that is not known."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def strata(self) -> Tensor:
        """What divisions over clients and balanced prefixes go by, int64 `(n,)`: the class of an image."""

    @abstractmethod
    def to(self, device: torch.device) -> "Samples":
        """The same samples on `device`."""

    @abstractmethod
    def chosen(self, kept: Tensor) -> "Samples":
        """Some of them, by index or mask."""

    @abstractmethod
    def labels_at(self, index: Tensor) -> Tensor:
        """Labels of the samples `index (b,)`: `(b,)`, or `(b, t)` of text."""

    @abstractmethod
    def inputs_at(self, index: Tensor) -> Tensor:
        """Inputs of the samples `index (b,)`: `(b, ...)`, without anything drawn."""


PAD_INPUT = -1
"""Token id of a position behind the end of a sample."""
