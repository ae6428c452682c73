"""Smashed data on the wire as a deployed client model makes them: nothing is quantized for the journey.

Of padded texts only real positions travel, and the length of each before them.
"""

import struct
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import is_finite, require_finite
from fedsplit.quant.codecs.label_codec import smallest_type
from fedsplit.quant.message import Corrupt, Message, expect
from fedsplit.quant.positions import real_positions

CODES = (torch.uint8, torch.int8)
"""Types of codes; a scale and a zero point are sent before them."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types of values that are no codes."""
_PARAMETERS = struct.Struct("<di")
"""Scale and zero point, little-endian."""
_LARGEST = torch.finfo(torch.float32).max


class DeviceCodes:
    """Smashed data of a device, which are decoded once, by who receives them.

    Args:
        context: the most positions of a sample of smashed data `(b, t, ...)` that are padded at the right;
            None of data that are never padded.
        padding: value that decoded smashed data have behind the end of a sample.
    """

    def __init__(self, context: int | None = None, padding: float = 0.0) -> None:
        self.context, self._padding = context, padding
        self._length = None if context is None else smallest_type(context)

    def encode(self, smashed: SmashedData, lengths: Tensor | None = None) -> Message:
        """The message of smashed data of `CODES` or `FLOATS`.

        Args:
            smashed: smashed data of a batch.
            lengths: positions of each sample, `(b,)`; not looked at where data are never padded.

        Raises:
            NonFiniteTensor: a value is not finite.
        """
        values, start = smashed.values, b""
        if values.dtype in CODES:
            assert smashed.scale is not None
            start = _PARAMETERS.pack(smashed.scale, smashed.zero_point)
        if self._length is not None:
            assert lengths is not None
            start += to_bytes(lengths.to(self._length))
            values = values[real_positions(lengths, values.shape[1])]
        if values.dtype not in CODES:
            require_finite(values)
        return Message.seal(start + to_bytes(values), tuple(smashed.values.shape), values.dtype)

    def decode(self, message: Message) -> Tensor:
        """The smashed data that a message stands for, float32, contiguous, on the CPU.

        Raises:
            Corrupt: the message was altered, or no device sends it.
        """
        message.verify()
        shape, lengths = message.shape, self.lengths(message)
        real = None if lengths is None else real_positions(lengths, shape[1])
        sent = shape if real is None else (int(real.sum()), *shape[2:])
        start = self._start(shape, message.dtype)
        expect(message.payload, start + prod(sent) * message.dtype.itemsize)
        values = from_bytes(message.payload[start:], message.dtype).view(sent)
        if message.dtype in CODES:
            scale, zero_point = _PARAMETERS.unpack_from(message.payload)
            limits = torch.iinfo(message.dtype)
            largest = scale * (limits.max - limits.min)  # every value is finite if this is
            if not (0 < largest <= _LARGEST and limits.min <= zero_point <= limits.max):
                raise Corrupt(f"codes have scale {scale} and zero point {zero_point}, which no sender writes")
            decoded = SmashedData(values, scale, zero_point).decode()
        elif is_finite(values):
            decoded = SmashedData(values).decode()
        else:
            raise Corrupt("a value is not finite")
        if real is None:
            return decoded
        padded = decoded.new_full(shape, self._padding)
        padded[real] = decoded
        return padded

    def lengths(self, message: Message) -> Tensor | None:
        """Positions of each sample of a message, int64 `(b,)`; None of data that are never padded.

        Raises:
            Corrupt: no samples have such lengths.
        """
        if self._length is None:
            return None
        if len(message.shape) < 3:
            raise Corrupt(f"smashed data of shape {message.shape} have no positions")
        samples, longest = message.shape[:2]
        end = self._start(message.shape, message.dtype)
        start = end - samples * self._length.itemsize
        expect(message.payload[start:end], end - start)
        lengths = from_bytes(message.payload[start:end], self._length).to(torch.int64)
        if samples and not 1 <= int(lengths.min()) <= int(lengths.max()) == longest:
            raise Corrupt(
                f"a sample must have from 1 to {longest} positions, and the longest must have {longest}"
            )
        return lengths

    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """The most bytes of the payload of such smashed data; without padding, those that it has.

        Raises:
            Corrupt: no smashed data are of this type.
        """
        return self._start(shape, dtype) + prod(shape) * dtype.itemsize

    def _start(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes before the first value."""
        if dtype not in (*CODES, *FLOATS):
            raise Corrupt(f"smashed data have type {dtype}, which this run never sends")
        parameters = _PARAMETERS.size if dtype in CODES else 0
        return parameters + (0 if self._length is None else shape[0] * self._length.itemsize)
