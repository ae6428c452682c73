"""Whole numbers of any number of bits, back to back: n of them take ceil(n * bits / 8) bytes.

Number i takes bits i * bits and up of one little-endian stream; of numbers beyond eight bits, the low
bytes come first and the rest follows as a stream of its own.
"""

import numpy as np
import torch
from torch import Tensor

from fedsplit.quant.message import Corrupt, Payload, expect

_WORDS = ((16, torch.int16), (32, torch.int32), (64, torch.int64))


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` numbers take."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> bytes:
    """Pack whole numbers `codes (n,)`, each from 0 to below 2^bits."""
    if bits > 8:
        low = (codes & 0xFF).to(torch.uint8)
        return to_bytes(low) + pack(codes >> 8, bits - 8)
    codes = codes.to(torch.uint8)
    if bits == 8:
        return to_bytes(codes)
    size = packed_size(len(codes), bits)
    if len(codes) % 8:
        codes = torch.cat([codes, codes.new_zeros(-len(codes) % 8)])
    # Neighbours are merged, twice as wide each time, by operations on whole words: b bits of each of
    # two numbers that lie `half` bits apart become 2b bits of one.
    wide = codes
    for width, dtype in _WORDS:
        merged_width, half = width // 8 * bits, width // 2
        mask = (1 << merged_width // 2) - 1
        wide = wide.view(dtype)
        wide = (wide & mask) | ((wide >> (half - merged_width // 2)) & (mask << merged_width // 2))
        if merged_width == 8:
            return to_bytes(wide.to(torch.uint8))[:size]
    return to_bytes(wide.view(torch.uint8).view(-1, 8)[:, :bits])[:size]


def unpack(payload: bytes, count: int, bits: int) -> Tensor:
    """Unpack the `count` numbers of a payload: uint8 up to eight bits, int32 or int64 beyond.

    Raises:
        Corrupt: the payload has another length, or bits beyond the last number.
    """
    expect(payload, packed_size(count, bits))
    if bits > 8:
        low = from_bytes(payload[:count], torch.uint8)
        wide_type = torch.int32 if bits < 32 else torch.int64
        return low.to(wide_type) | (unpack(payload[count:], count, bits - 8).to(wide_type) << 8)
    if bits == 8:
        return from_bytes(payload, torch.uint8)
    if count * bits % 8 and payload[-1] >> count * bits % 8:
        raise Corrupt("the payload has bits beyond its last value, which must be zeros")
    groups = -(-count // 8)
    packed_bytes = from_bytes(payload.ljust(groups * bits, b"\0"), torch.uint8)
    if 8 % bits == 0:  # one, two or four numbers a byte: start from the word that eight bits spread to
        start = [8 * bits, 4 * bits, 2 * bits].index(8)
        wide = packed_bytes.to(_WORDS[2 - start][1])
    else:
        start = 0
        wide = torch.zeros(groups, 8, dtype=torch.uint8)
        wide[:, :bits] = packed_bytes.view(groups, bits)
        wide = wide.view(torch.int64).view(-1)
    for width, _ in _WORDS[: 3 - start][::-1]:
        merged_width, half = width // 8 * bits, width // 2
        mask = (1 << merged_width // 2) - 1
        wide = (wide & mask) | ((wide & (mask << merged_width // 2)) << (half - merged_width // 2))
        narrower = {16: torch.uint8, 32: torch.int16, 64: torch.int32}[width]
        wide = wide.view(narrower)
    return wide[:count]


def to_bytes(x: Tensor) -> bytes:
    """Bytes of a tensor's memory, row by row."""
    x = x.detach().cpu().contiguous()
    # a tensor of one value is contiguous with any stride
    return x.as_strided((x.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


def from_bytes(payload: Payload, dtype: torch.dtype) -> Tensor:
    """Tensor `(n,)` with this memory; `Corrupt` where the length is no multiple of the type's."""
    if len(payload) % dtype.itemsize:
        raise Corrupt(f"a payload of {len(payload)} bytes must be a multiple of {dtype.itemsize} bytes")
    if not payload:
        return torch.zeros(0, dtype=dtype)
    return torch.from_numpy(np.frombuffer(payload, np.uint8).copy()).view(dtype)
