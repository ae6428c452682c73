"""Smashed data on the wire as a deployed client model makes them: nothing is quantized for the journey."""

import struct
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import is_finite, require_finite
from fedsplit.quant.message import Corrupt, Message, expect

CODES = (torch.uint8, torch.int8)
"""Types of codes; a scale and a zero point are sent before them."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types of values that are no codes."""
_PARAMETERS = struct.Struct("<di")
"""Scale and zero point, little-endian."""
_LARGEST = torch.finfo(torch.float32).max


class DeviceCodes:
    """Smashed data of a device, which are decoded once, by who receives them."""

    def encode(self, smashed: SmashedData) -> Message:
        """The message of smashed data of `CODES` or `FLOATS`; `NonFiniteTensor` where a value is not."""
        values, start = smashed.values, b""
        if values.dtype in CODES:
            assert smashed.scale is not None
            start = _PARAMETERS.pack(smashed.scale, smashed.zero_point)
        else:
            require_finite(values)
        return Message.seal(start + to_bytes(values), tuple(values.shape), values.dtype)

    def decode(self, message: Message) -> Tensor:
        """The smashed data that a message stands for, float32, contiguous, on the CPU.

        Raises:
            Corrupt: the message was altered, or no device sends it.
        """
        message.verify()
        size = self.largest(message.shape, message.dtype)
        expect(message.payload, size)
        if message.dtype not in CODES:
            values = from_bytes(message.payload, message.dtype).view(message.shape)
            if not is_finite(values):
                raise Corrupt("a value is not finite")
            return SmashedData(values).decode()
        scale, zero_point = _PARAMETERS.unpack_from(message.payload)
        limits = torch.iinfo(message.dtype)
        largest = scale * (limits.max - limits.min)  # every value is finite if this is
        if not (0 < largest <= _LARGEST and limits.min <= zero_point <= limits.max):
            raise Corrupt(f"no codes have the scale {scale} and the zero point {zero_point}")
        codes = from_bytes(message.payload[_PARAMETERS.size :], message.dtype).view(message.shape)
        return SmashedData(codes, scale, zero_point).decode()

    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """The bytes of the payload of such smashed data; `Corrupt` where no smashed data are of this type."""
        if dtype not in (*CODES, *FLOATS):
            raise Corrupt(f"no smashed data are of {dtype}")
        return prod(shape) * dtype.itemsize + (_PARAMETERS.size if dtype in CODES else 0)
