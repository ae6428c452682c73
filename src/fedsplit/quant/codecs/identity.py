"""No coding: the values themselves, in the type they have."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import Codec, Transfer, is_finite, require_finite
from fedsplit.quant.message import Corrupt, Message, expect


class Identity(Codec):
    """The memory of a tensor as it is; whole numbers too. No error."""

    lossless = True

    @override
    def encode(self, x: Tensor, *, seed: int = 0) -> Message:
        require_finite(x)
        return Message.seal(to_bytes(x), tuple(x.shape), x.dtype)

    @override
    def decode(self, message: Message) -> Tensor:
        message.verify()
        expect(message.payload, prod(message.shape) * message.dtype.itemsize)
        values = from_bytes(message.payload, message.dtype).view(message.shape)
        if message.dtype.is_floating_point and not is_finite(values):
            raise Corrupt("the payload has a value that is not finite")
        return values

    @override
    def simulate(self, x: Tensor, *, seed: int = 0) -> Transfer:
        require_finite(x)
        return Transfer(x, x.numel() * x.element_size())

    @override
    def transmit(self, x: Tensor, *, seed: int = 0) -> Transfer:
        message = self.encode(x)
        return Transfer(x, len(message.payload), message)

    @override
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return prod(shape) * dtype.itemsize

    @override
    def error_bound(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape, dtype=torch.float64)
