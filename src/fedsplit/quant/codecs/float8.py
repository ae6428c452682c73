"""Eight-bit floating point with a scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import ChannelDim, PositiveInt
from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import Quantizer
from fedsplit.quant.granularity import Granularity, GranularityName
from fedsplit.quant.message import Corrupt, expect
from fedsplit.quant.scales import ScaleType, pack_values, round_up, scale_bytes, unpack_scales

_LARGEST = 448.0
"""Largest value of e4m3 (4 bits of exponent, 3 of mantissa, no infinity); its smallest step is 2^-9."""


@dataclass(frozen=True)
class ScaledFloats:
    """Values `(r, k)`, float8, and the scale `(r,)` of each row."""

    values: Tensor
    scale: Tensor


class Float8(Quantizer[ScaledFloats]):
    """float8 e4m3, each row of values scaled so that its largest magnitude becomes 448.

    Payload: scales, a byte a value. Error: 2^-4 of the value, at least 2^-10 of the scale.

    Source: P. Micikevicius et al., "FP8 Formats for Deep Learning", 2022.

    Args:
        granularity: division into rows that share a scale; it, `block_size` and `channel_dim` are those of
            `Granularity`.
    """

    def __init__(
        self,
        *,
        granularity: GranularityName = "tensor",
        block_size: PositiveInt = 64,
        channel_dim: ChannelDim | Literal["auto"] = "auto",
        scale_type: ScaleType = "bfloat16",
    ) -> None:
        self.granularity = Granularity(granularity, block_size, channel_dim)
        self.scale_type = scale_type

    @override
    def quantize(self, x: Tensor, seed: int) -> ScaledFloats:
        rows = self.granularity.split(x)
        scale = self._scale(rows)
        scaled_rows = (rows * (1 / scale)[:, None]).clamp_(-_LARGEST, _LARGEST)
        return ScaledFloats(scaled_rows.to(torch.float8_e4m3fn), scale)

    def _scale(self, rows: Tensor) -> Tensor:
        return round_up(torch.maximum(-rows.amin(1), rows.amax(1)) / _LARGEST, self.scale_type)

    @override
    def dequantize(self, form: ScaledFloats, shape: Sequence[int]) -> Tensor:
        limits = torch.finfo(torch.float32)
        values = (form.values.to(torch.float32) * form.scale[:, None]).clamp_(limits.min, limits.max)
        return self.granularity.join(values, shape)

    @override
    def pack(self, form: ScaledFloats, shape: Sequence[int]) -> bytes:
        return pack_values(form.scale, self.scale_type) + to_bytes(form.values)[: prod(shape)]

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> ScaledFloats:
        expect(payload, self.size(shape))
        rows, length = self.granularity.rows_of(shape)
        scales = rows * scale_bytes(self.scale_type)
        scale = unpack_scales(payload[:scales], self.scale_type)
        values = from_bytes(payload[scales:].ljust(rows * length, b"\0"), torch.float8_e4m3fn)
        if values.to(torch.float32).isnan().any():
            raise Corrupt("the payload has a value that is not finite")
        return ScaledFloats(values.view(rows, length), scale)

    @override
    def codes(self, form: ScaledFloats) -> Tensor:
        return form.values.view(torch.uint8)

    @override
    def size(self, shape: Sequence[int]) -> int:
        rows, _ = self.granularity.rows_of(shape)
        return rows * scale_bytes(self.scale_type) + prod(shape)

    @override
    def bound(self, x: Tensor) -> Tensor:
        scale = self._scale(self.granularity.split(x))
        smallest = self.granularity.spread(scale.double() * 2**-10, x.shape)
        relative = x.double().abs() * (2**-4 + 2**-20)
        return torch.maximum(relative, smallest * (1 + 2**-20))
