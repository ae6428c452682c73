"""Labels that are numbers, as they travel."""

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import is_finite
from fedsplit.quant.codecs.label_codec import LabelCodec
from fedsplit.quant.message import Corrupt, Message, expect

_BYTES = 4


class Values(LabelCodec):
    """Labels that are numbers, as float32."""

    label_type = torch.float32

    @override
    def size(self, labels: Tensor) -> int:
        return labels.numel() * _BYTES

    @override
    def load(self, samples: int, positions: int | Fraction) -> int | Fraction:
        return samples * _BYTES

    @override
    def encode(self, labels: Tensor) -> Message:
        if not torch.isfinite(labels).all():
            raise ValueError("a label is not a finite number")
        return Message.seal(to_bytes(labels.to(torch.float32)), tuple(labels.shape), torch.float32)

    @override
    def decode(self, message: Message) -> Tensor:
        payload = message.verified_payload()
        if message.dtype != torch.float32:
            raise Corrupt(f"labels have type {message.dtype}, and must have {self.label_type}")
        expect(payload, prod(message.shape) * _BYTES)
        labels = from_bytes(payload, torch.float32).view(message.shape)
        if not is_finite(labels):
            raise Corrupt("a label is not a finite number")
        return labels

    @override
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return prod(shape) * _BYTES
