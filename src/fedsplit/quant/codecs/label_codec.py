"""Interface of codecs of labels, which always arrive as they are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from fedsplit.quant.message import Message


class LabelCodec(ABC):
    """Codec of a batch's labels, of the type `label_type`."""

    label_type: torch.dtype = torch.int64
    """Type of labels, before they travel and after."""

    context: int | None = None
    """Most positions of a sample, for labels `(b, t)`; None for labels without positions."""

    @abstractmethod
    def size(self, labels: Tensor) -> int:
        """Number of bytes of the payload."""

    @abstractmethod
    def load(self, samples: int, positions: int | Fraction) -> int | Fraction:
        """Bytes of the labels of some samples; `positions` is their number in all, or its mean."""

    @abstractmethod
    def encode(self, labels: Tensor) -> Message:
        """Encode labels into a message.

        Raises:
            ValueError: they are no labels of this run.
        """

    @abstractmethod
    def decode(self, message: Message) -> Tensor:
        """Decode the labels of a message.

        Raises:
            Corrupt: the message was altered, or has no labels of this run.
        """

    @abstractmethod
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Most bytes that the payload of labels of this shape can have."""


def smallest_type(largest: int) -> torch.dtype:
    """Smallest unsigned type that holds whole numbers from 0 to `largest`; int64 beyond 32 bits."""
    types = (torch.uint8, torch.uint16, torch.uint32, torch.int64)
    return next(dtype for dtype in types if largest <= torch.iinfo(dtype).max)
