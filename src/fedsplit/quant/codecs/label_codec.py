"""Interface of codecs of labels, which always arrive as they are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from fedsplit.quant.message import Message


class LabelCodec(ABC):
    """Codes the labels of a batch, of the type `decoded`."""

    decoded: torch.dtype = torch.int64
    """Type of labels, before they travel and after."""

    context: int | None = None
    """The most positions of a sample, of labels `(b, t)`; None of labels that no length goes with."""

    @abstractmethod
    def size(self, labels: Tensor) -> int:
        """Number of bytes of the payload."""

    @abstractmethod
    def load(self, samples: int, positions: int | Fraction) -> int | Fraction:
        """Bytes of the labels of so many samples, which have so many positions in all, or in the mean."""

    @abstractmethod
    def encode(self, labels: Tensor) -> Message:
        """The message of labels.

        Raises:
            ValueError: they are no labels of this run.
        """

    @abstractmethod
    def decode(self, message: Message) -> Tensor:
        """The labels.

        Raises:
            Corrupt: the message was altered, or no labels of this run are in it.
        """

    @abstractmethod
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """The most bytes that the payload of labels of this shape can have."""


def smallest_type(largest: int) -> torch.dtype:
    """The smallest unsigned type that holds whole numbers from 0 to `largest`; int64 beyond 32 bits."""
    types = (torch.uint8, torch.uint16, torch.uint32, torch.int64)
    return next(dtype for dtype in types if largest <= torch.iinfo(dtype).max)
