"""Scales as they travel: bfloat16 or float32, whose exponents reach as far as float32's values do.

(float16 ends near 6e-8: scales of gradients near 1e-5 would lose most of their digits.)
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.message import Corrupt

ScaleType: TypeAlias = Literal["bfloat16", "float32"]
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

SMALLEST = 2.0**-126
"""The smallest normal float32; the inverse of anything smaller overflows."""
LARGEST = 0.99 * torch.finfo(torch.bfloat16).max


def scale_bytes(scale_type: ScaleType) -> int:
    """Number of bytes of one scale."""
    return _DTYPES[scale_type].itemsize


def round_up(scales: Tensor, scale_type: ScaleType) -> Tensor:
    """Round up to the next value that travels exactly, float32, so that what fits a scale still fits."""
    scales = scales.clamp(SMALLEST, LARGEST)
    if scale_type == "float32":
        return scales
    # the upper half of a float32 is a bfloat16
    bits = scales.view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def round_to_nearest(values: Tensor, scale_type: ScaleType) -> Tensor:
    """Round to the nearest values that travel exactly, float32."""
    return values.clamp(-LARGEST, LARGEST).to(_DTYPES[scale_type]).to(torch.float32)


def pack_values(values: Tensor, scale_type: ScaleType) -> bytes:
    """Pack values that travel exactly into bytes."""
    return to_bytes(values.to(_DTYPES[scale_type]))


def unpack_values(payload: bytes, scale_type: ScaleType) -> Tensor:
    """Unpack values, float32; `Corrupt` where one is not finite."""
    values = from_bytes(payload, _DTYPES[scale_type]).to(torch.float32)
    if not torch.isfinite(values).all():
        raise Corrupt("the payload has a scale that is not finite")
    return values


def unpack_scales(payload: bytes, scale_type: ScaleType) -> Tensor:
    """Unpack scales, float32; `Corrupt` where one is not finite, or not above 0."""
    scales = unpack_values(payload, scale_type)
    if (scales <= 0).any():
        raise Corrupt("the payload has a scale that is not above 0")
    return scales
