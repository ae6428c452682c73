"""Measurements of what a codec does to a tensor."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log10
from statistics import median

import torch
from torch import Tensor

from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.codecs.zstd import Zstd

_LEVEL = 3
"""Level of compression, zstandard's own default."""


@dataclass(frozen=True)
class Survey:
    """Measures of one codec on one tensor.

    Args:
        bits: bits per value, as packed.
        compressed_bits: bits per value, with zstandard as last stage; None where it cannot be.
        entropy: bits per value of the codes if each were coded by how often it occurs alone (order 0),
            without
          scales; None where values have no codes of their own.
        sqnr: ratio of signal to quantization noise, dB.
        encode_mb_s: speed of encoding, in MB of float32 values a second.
        decode_mb_s: speed of decoding, likewise.
    """

    bits: float
    compressed_bits: float | None
    entropy: float | None
    sqnr: float
    encode_mb_s: float
    decode_mb_s: float


def survey(codec: Codec, x: Tensor, repeats: int) -> Survey:
    """Measure `codec` on `x`, on the CPU; speeds are the median of `repeats`."""
    x = x.cpu()
    message = codec.encode(x)
    noise = float((codec.decode(message).double() - x.double()).square().sum())
    signal = float(x.double().square().sum())
    compressed_bits = entropy = None
    if isinstance(codec, Quantizer):
        smaller = codec if isinstance(codec, Zstd) else Zstd(codec, _LEVEL)
        compressed_bits = 8 * len(smaller.encode(x).payload) / x.numel()
        entropy = _entropy(codec.codes(codec.quantize(x.float().contiguous(), 0)))
    megabytes = 4 * x.numel() / 1e6
    return Survey(
        bits=8 * len(message.payload) / x.numel(),
        compressed_bits=compressed_bits,
        entropy=entropy,
        sqnr=10 * log10(signal / noise) if signal and noise else inf,
        encode_mb_s=megabytes / _seconds(lambda: codec.encode(x), repeats),
        decode_mb_s=megabytes / _seconds(lambda: codec.decode(message), repeats),
    )


def _entropy(codes: Tensor | None) -> float | None:
    if codes is None:
        return None
    counts = torch.unique(codes, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return abs(float((shares * shares.log2()).sum()))


def _seconds(work: Callable[[], object], repeats: int) -> float:
    timings = []
    for _ in range(repeats + 1):  # the first warms up
        start = time.perf_counter()
        work()
        timings.append(time.perf_counter() - start)
    return median(timings[1:])
