"""Labels as they travel."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.message import Corrupt, Message, expect


class Labels:
    """Class numbers, from 0 to below `num_classes`, in the smallest unsigned type that holds them."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.dtype = next(
            dtype
            for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.int64)
            if num_classes - 1 <= torch.iinfo(dtype).max
        )

    def size(self, labels: Tensor) -> int:
        """Bytes of the payload."""
        return labels.numel() * self.dtype.itemsize

    def encode(self, labels: Tensor) -> Message:
        """The message of labels, int64; `ValueError` where one is no class."""
        if self._strangers(labels):
            raise ValueError(f"a label is none of {self.num_classes} classes")
        return Message.sealed(to_bytes(labels.to(self.dtype)), tuple(labels.shape), torch.int64)

    def decode(self, message: Message) -> Tensor:
        """The labels, int64; `Corrupt` where the message was altered, or holds what is no class."""
        payload = message.opened()
        if message.dtype != torch.int64:
            raise Corrupt(f"labels are no {message.dtype}")
        expect(payload, prod(message.shape) * self.dtype.itemsize)
        labels = from_bytes(payload, self.dtype).to(torch.int64).view(message.shape)
        if self._strangers(labels):
            raise Corrupt(f"a label is none of {self.num_classes} classes")
        return labels

    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """The most bytes that the payload of so many labels can have."""
        return prod(shape) * self.dtype.itemsize

    def _strangers(self, labels: Tensor) -> bool:
        return bool(((labels < 0) | (labels >= self.num_classes)).any())
