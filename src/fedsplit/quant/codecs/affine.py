"""Uniform quantization to any number of bits."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import Bits, ChannelDim, Percentile, PositiveFloat, PositiveInt
from fedsplit.errors import UserError
from fedsplit.quant.codec import Quantizer
from fedsplit.quant.codecs.affine_rows import AffineRows, QuantizedRows, RangeName, Rounding
from fedsplit.quant.codecs.allocated import ALLOCATED_BITS, AllocatedAffine
from fedsplit.quant.granularity import Granularity, GranularityName
from fedsplit.quant.scales import ScaleType


class Affine(Quantizer[QuantizedRows]):
    """Codes of 1 to 16 bits, bit-packed; a scale, and unless symmetric a zero point, for each row of values.

    Payload: scales, zero points (as many bits as a code), codes. Error: half a step for what
    lies in the range (a step with stochastic rounding), and the distance to the range for the rest.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, section 2.1.
    """

    def __init__(self, granularity: Granularity, rows: AffineRows) -> None:
        self.granularity, self.rows = granularity, rows

    @override
    def quantize(self, x: Tensor, seed: int) -> QuantizedRows:
        return self.rows.quantize(self.granularity.split(x), seed)

    @override
    def dequantize(self, form: QuantizedRows, shape: Sequence[int]) -> Tensor:
        return self.granularity.join(self.rows.dequantize(form), shape)

    @override
    def pack(self, form: QuantizedRows, shape: Sequence[int]) -> bytes:
        return self.rows.pack(form, prod(shape))

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> QuantizedRows:
        return self.rows.unpack(payload, *self.granularity.rows_of(shape), prod(shape))

    @override
    def codes(self, form: QuantizedRows) -> Tensor:
        return form.codes

    @override
    def size(self, shape: Sequence[int]) -> int:
        rows, _ = self.granularity.rows_of(shape)
        return self.rows.size(rows, prod(shape))

    @override
    def bound(self, x: Tensor) -> Tensor:
        bound = self.rows.error_bound(self.granularity.split(x))
        return self.granularity.join(bound, x.shape)


def affine(
    *,
    bits: Bits | Literal["auto"],
    budget: PositiveFloat | None = None,
    granularity: GranularityName,
    block_size: PositiveInt = 64,
    channel_dim: ChannelDim | Literal["auto"] = "auto",
    symmetric: bool = False,
    rounding: Rounding = "nearest",
    range: RangeName = "minmax",
    percentile: Percentile = 99.9,
    scale_type: ScaleType = "bfloat16",
) -> Affine | AllocatedAffine:
    """`Affine` codec with a number of bits, or `AllocatedAffine` codec with a budget of bits.

    Args:
        bits: bits of a code; `auto` gives each channel its own number under `budget`.
        budget: bits per value, with `auto`.
        granularity: division into rows that share a scale; it, `block_size` and `channel_dim` are those of
            `Granularity`.
        symmetric: range from -a to a; else from the smallest to the largest value, and 0.
        rounding: `nearest`, or `stochastic`, whose mean is the value itself (with range `minmax`, and
            symmetric or with two bits or more).
        range: `minmax`, `percentile`, or `mse`, the part of the full range with the least squared error.
        percentile: percentage of values that lie in range `percentile`.

    Raises:
        UserError: `auto` without a budget, a budget without `auto`.
    """
    scale_granularity = Granularity(granularity, block_size, channel_dim)

    def rows(bits: int) -> AffineRows:
        return AffineRows(bits, symmetric, rounding, range, percentile, scale_type)

    if bits != "auto":
        if budget is not None:
            raise UserError("budget", budget, f"must be null with bits={bits}; it is for bits=auto")
        return Affine(scale_granularity, rows(bits))
    if budget is None:
        raise UserError("budget", budget, "must be a number of bits per value with bits=auto, such as 1.0")
    return AllocatedAffine(budget, scale_granularity, [rows(row_bits) for row_bits in ALLOCATED_BITS])
