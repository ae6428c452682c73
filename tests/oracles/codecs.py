"""What codecs do, written again in numpy and Python integers from what their documentation says."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]

LEAST_SCALE = 2.0**-126


def stream(numbers: Sequence[int], bits: int) -> bytes:
    """Whole numbers, back to back in one little-endian number; beyond eight bits the low bytes come first."""
    if bits > 8:
        return bytes(number & 0xFF for number in numbers) + stream([n >> 8 for n in numbers], bits - 8)
    whole = sum(number << place * bits for place, number in enumerate(numbers))
    return whole.to_bytes(ceil(len(numbers) * bits / 8), "little")


def numbers_in(payload: bytes, count: int, bits: int) -> list[int]:
    """The numbers of a `stream`."""
    if bits > 8:
        low, high = payload[:count], numbers_in(payload[count:], count, bits - 8)
        return [one + (other << 8) for one, other in zip(low, high, strict=True)]
    whole = int.from_bytes(payload, "little")
    return [whole >> place * bits & (1 << bits) - 1 for place in range(count)]


def bfloat16(values: Floats, *, up: bool = False) -> Floats:
    """The nearest values with eight significant bits (even where two are), or the next at or above."""
    _, exponents = np.frexp(values)
    steps = np.ldexp(1.0, np.maximum(exponents, -125) - 8)
    whole: Floats = np.ceil(values / steps) if up else np.rint(values / steps)
    values = whole * steps
    return values


def floats_in(payload: bytes, scale_type: str) -> Floats:
    """Little-endian bfloat16 or float32 values."""
    if scale_type == "bfloat16":
        payload = b"".join(b"\0\0" + payload[at : at + 2] for at in range(0, len(payload), 2))
    return np.frombuffer(payload, "<f4").astype(np.float64)


def groups(shape: Sequence[int], granularity: str, block_size: int, channel_dim: int) -> list[Places]:
    """Places in a flattened tensor that share a scale, group by group."""
    places = np.arange(prod(shape))
    if granularity == "block":
        return [places[start : start + block_size] for start in range(0, len(places), block_size)]
    if granularity == "token" and shape:
        return list(places.reshape(-1, shape[-1]))
    if granularity == "channel" and len(shape) > max(1, channel_dim):
        whole = places.reshape(shape)
        return [whole.take(channel, channel_dim).ravel() for channel in range(shape[channel_dim])]
    return [places]


@dataclass(frozen=True)
class Quantized:
    """One group: codes and zero point, exact and rounded; the scale; decoded values."""

    exact: Floats
    codes: Floats
    exact_zero: float
    zero: float
    scale: float
    decoded: Floats


def quantized(values: Floats, bits: int, symmetric: bool, scale_type: str, shrink: float = 1) -> Quantized:
    """Uniform quantization, to the nearest, of the range of `values` or of a part of it."""
    low, high = shrink * min(values.min(), 0), shrink * max(values.max(), 0)
    last = 2**bits - (2 if symmetric and bits > 1 else 1)
    width = 2 * max(-low, high) if symmetric else high - low
    exact_scale = max(width / last, LEAST_SCALE)
    up = float(bfloat16(np.array(exact_scale), up=True))
    scale = up if scale_type == "bfloat16" else float(np.float32(exact_scale))
    exact_zero = last / 2 if symmetric else -low / scale
    zero = exact_zero if symmetric else np.rint(exact_zero)
    exact = values / scale + zero
    codes = np.clip(np.rint(exact), 0, last)
    if symmetric and bits == 1:  # there is no middle: what is not negative is above it
        codes = (values >= 0).astype(np.float64)
    return Quantized(exact, codes, exact_zero, zero, scale, (codes - zero) * scale)


def sqnr(values: Floats, decoded: Floats) -> float:
    """Signal to quantization noise, in decibels."""
    return float(10 * np.log10(np.square(values).sum() / np.square(values - decoded).sum()))
