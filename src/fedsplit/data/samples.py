"""Interface of training and test data, be they images or text."""

from abc import ABC, abstractmethod
from typing import Final, Self

import torch
from torch import Tensor

from fedsplit.data.fingerprint import Fingerprint

PAD_INPUT: Final = -1
"""Token id of a position behind the end of a sample."""


class Samples(ABC):
    """Labelled samples of one split: inputs and labels by index.

    Padding is part of the contract: inputs of samples of different lengths are padded on the right to the
    longest of the batch, token inputs with `PAD_INPUT`, their labels with the objective's padding label.
    An index is int64 `(b,)` on `index_device`, or a slice.
    """

    @property
    def owners(self) -> Tensor | None:
        """Owner of each sample, int64 `(n,)`; None where that is not known."""
        return None

    @property
    @abstractmethod
    def strata(self) -> Tensor:
        """Strata that divisions and balanced prefixes go by, int64 `(n,)`: the class of an image."""

    @property
    @abstractmethod
    def index_device(self) -> torch.device:
        """The device on which an index costs least."""

    @property
    def augments(self) -> bool:
        """True if something is drawn for the samples of a training batch."""
        return False

    @property
    def in_files(self) -> bool:
        """True if inputs are read when they are asked for: then it is worth saying so before."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples in this split."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same samples, for batches on `device`."""

    @abstractmethod
    def select(self, kept: Tensor) -> Self:
        """Select some of the samples, by index or mask."""

    @abstractmethod
    def inputs_at(self, index: Tensor | slice, draws: Tensor | None = None) -> Tensor:
        """Inputs `(b, ...)` of the samples `index`.

        Args:
            draws: `(b, d)` as `draw` gives them, for training; None augments nothing.
        """

    @abstractmethod
    def labels_at(self, index: Tensor | slice) -> Tensor:
        """Labels of the samples `index`: int64 `(b,)`, or `(b, t)` of text."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Fingerprint that tells these samples from others."""

    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        """Draws for `count` samples of a training batch, int64 `(count, d)`."""
        return torch.empty(count, 0, dtype=torch.int64)

    def prefetch(self, index: Tensor | slice) -> None:
        """Get inputs ready that will soon be asked for."""
        return
