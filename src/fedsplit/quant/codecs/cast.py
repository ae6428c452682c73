"""Common part of the codecs that only shorten each value."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import Quantizer, is_finite
from fedsplit.quant.message import Corrupt, expect


class Cast(Quantizer[Tensor]):
    """Values in another floating-point type; those beyond its range become the nearest within."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.limits = torch.finfo(dtype)

    @override
    def quantize(self, x: Tensor, seed: int) -> Tensor:
        return x.clamp(self.limits.min, self.limits.max).to(self.dtype)

    @override
    def dequantize(self, form: Tensor, shape: Sequence[int]) -> Tensor:
        return form.to(torch.float32).view(tuple(shape))

    @override
    def pack(self, form: Tensor, shape: Sequence[int]) -> bytes:
        return to_bytes(form)

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Tensor:
        expect(payload, self.size(shape))
        values = from_bytes(payload, self.dtype)
        if not is_finite(values):
            raise Corrupt("the payload has a value that is not finite")
        return values

    @override
    def codes(self, form: Tensor) -> Tensor:
        return form.view(torch.int16)

    @override
    def size(self, shape: Sequence[int]) -> int:
        return prod(shape) * self.dtype.itemsize

    @override
    def bound(self, x: Tensor) -> Tensor:
        values = x.double().abs()
        # half a unit in the last place, below the smallest normal value that of the subnormal ones
        within = (values * self.limits.eps / 2).clamp_min(self.limits.tiny * self.limits.eps / 2)
        return within + (values - self.limits.max).clamp_min(0)
