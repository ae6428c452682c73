"""Codecs of labels of images."""

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codecs.label_codec import LabelCodec, smallest_type
from fedsplit.quant.message import Corrupt, Message, expect


class Labels(LabelCodec):
    """Class numbers, from 0 to below `num_classes`, in the smallest unsigned type that holds them."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.dtype = smallest_type(num_classes - 1)

    @override
    def size(self, labels: Tensor) -> int:
        return labels.numel() * self.dtype.itemsize

    @override
    def load(self, samples: int, positions: int | Fraction) -> int | Fraction:
        return samples * self.dtype.itemsize

    @override
    def encode(self, labels: Tensor) -> Message:
        if self._has_strangers(labels):
            raise ValueError(f"a label is not from 0 to {self.num_classes - 1}")
        return Message.seal(to_bytes(labels.to(self.dtype)), tuple(labels.shape), torch.int64)

    @override
    def decode(self, message: Message) -> Tensor:
        payload = message.verified_payload()
        if message.dtype != torch.int64:
            raise Corrupt(f"labels have type {message.dtype}, and must have {self.label_type}")
        expect(payload, prod(message.shape) * self.dtype.itemsize)
        labels = from_bytes(payload, self.dtype).to(torch.int64).view(message.shape)
        if self._has_strangers(labels):
            raise Corrupt(f"a label is not from 0 to {self.num_classes - 1}")
        return labels

    @override
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return prod(shape) * self.dtype.itemsize

    def _has_strangers(self, labels: Tensor) -> bool:
        return bool(((labels < 0) | (labels >= self.num_classes)).any())
