"""The uniform quantizer under `affine` and `allocated`: rows of values, a scale and a zero point for each."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedsplit.quant import bit_packing
from fedsplit.quant.message import Corrupt, expect
from fedsplit.quant.scales import ScaleType, pack_values, round_up, scale_bytes, unpack_scales
from fedsplit.randomness import uniform

RangeName: TypeAlias = Literal["minmax", "percentile", "mse"]
Rounding: TypeAlias = Literal["nearest", "stochastic"]

_LARGEST = torch.finfo(torch.float32).max
_SEARCHED = 2048
"""Values of a row that the search for the best range looks at, evenly spaced."""
_SHRINKS = tuple(2.0 ** (-step / 4) for step in range(17))
"""Fractions of the full range that it tries: from all to a sixteenth."""


@dataclass(frozen=True)
class QuantizedRows:
    """Codes `(r, k)`, uint8 or int32; of each row the scale `(r,)` and zero point `(r,)`, float32."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor


@dataclass(frozen=True)
class AffineRows:
    """A value is `(code - zero_point) * scale`, with codes of `bits` bits.

    Symmetric rows span -a to a with the zero point in the middle (so a code is left over; with one bit
    there are the two values -a and a); others span their smallest to their largest value, widened to
    hold 0, with a whole zero point, so that zeros stay zeros.

    Args:
        bits: number of bits of a code.
        rounding: `nearest` code, or `stochastic`: up or down at random so that the mean is kept.
        range: `minmax` the range of the row; `percentile` the one that so many percent of its values lie
            in; `mse` the fraction of the full range with the least squared error.
    """

    bits: int
    symmetric: bool = True
    rounding: Rounding = "nearest"
    range: RangeName = "minmax"
    percentile: float = 100.0
    scale_type: ScaleType = "float32"

    @property
    def levels(self) -> int:
        """Largest code of a value."""
        return (1 << self.bits) - (2 if self.symmetric and self.bits > 1 else 1)

    def quantize(self, rows: Tensor, seed: int) -> QuantizedRows:
        """Quantize `rows (r, k)`; stochastic rounding follows from `seed`."""
        scale, zero_point = self.grid(rows)
        codes = torch.mul(rows, (1 / scale)[:, None])
        if self.rounding == "stochastic":
            # rounded down before the zero point is added, which would swallow digits of what is drawn
            floor = zero_point.floor()
            codes.add_(uniform(rows.shape, seed).to(rows.device).add_((zero_point - floor)[:, None]))
            codes.floor_().add_(floor[:, None])
        else:
            codes.add_((zero_point + 0.5)[:, None])  # half a step, for conversion rounds down
        codes.clamp_(0, self.levels + 0.5)
        return QuantizedRows(codes.to(torch.uint8 if self.bits <= 8 else torch.int32), scale, zero_point)

    def dequantize(self, form: QuantizedRows) -> Tensor:
        """The values `(r, k)`, float32."""
        values = form.codes.to(torch.float32)
        values.sub_(form.zero_point[:, None]).mul_(form.scale[:, None])
        if form.scale.max() > 2.0 ** (127 - self.bits):  # a last code may lie beyond what float32 holds
            values.clamp_(-_LARGEST, _LARGEST)
        return values

    def pack(self, form: QuantizedRows, count: int) -> bytes:
        """Scales, zero points, and the first `count` codes."""
        sides = pack_values(form.scale, self.scale_type)
        if not self.symmetric:
            sides += bit_packing.pack(form.zero_point.to(torch.int32), self.bits)
        return sides + bit_packing.pack(form.codes.reshape(-1)[:count], self.bits)

    def unpack(self, payload: bytes, rows: int, length: int, count: int) -> QuantizedRows:
        """Unpack the form of some rows; `Corrupt` where this quantizer did not pack it."""
        expect(payload, self.size(rows, count))
        sides, scales = self._beside(rows), rows * scale_bytes(self.scale_type)
        scale = unpack_scales(payload[:scales], self.scale_type)
        if self.symmetric:
            zero_point = torch.full((rows,), self.levels / 2, dtype=torch.float32)
        else:
            zero_point = bit_packing.unpack(payload[scales:sides], rows, self.bits)
        codes = bit_packing.unpack(payload[sides:], count, self.bits)
        if max(int(codes.max()), int(zero_point.max())) > self.levels:
            raise Corrupt(f"a code is above {self.levels}, the largest of {self.bits} bits")
        if rows * length > count:
            codes = torch.cat([codes, codes.new_zeros(rows * length - count)])
        return QuantizedRows(codes.view(rows, length), scale, zero_point.to(torch.float32))

    def size(self, rows: int, count: int) -> int:
        """Bytes of `count` codes in so many rows."""
        return self._beside(rows) + bit_packing.packed_size(count, self.bits)

    def _beside(self, rows: int) -> int:
        zero_points = 0 if self.symmetric else bit_packing.packed_size(rows, self.bits)
        return rows * scale_bytes(self.scale_type) + zero_points

    def error_bound(self, rows: Tensor) -> Tensor:
        """The largest error of each value, float64: (half) a step, and the distance to the range."""
        scale, zero_point = (column.double()[:, None] for column in self.grid(rows))
        values = rows.double()
        low, high = -zero_point * scale, (self.levels - zero_point) * scale
        outside = (values - high).clamp_min(0) + (low - values).clamp_min(0)
        step = 0.5 if self.rounding == "nearest" else 1.0
        return scale * (step + self.levels * 2**-21) + outside + values.abs() * 2**-22

    def grid(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each row."""
        low, high = self._range(rows)
        if self.range != "mse":
            return self._grid(low, high)
        full = best = self._grid(low, high)
        stride = -(-rows.shape[1] // _SEARCHED)
        looked_at = rows[:, ::stride].contiguous()
        least = torch.full_like(low, torch.inf)
        for shrink in _SHRINKS:
            candidate = self._grid(low * shrink, high * shrink)
            best, least = self._better(
                best, least, candidate, self._squared_error(looked_at, *candidate, full[0])
            )
        if stride == 1:
            return best
        # values outside the sample may lie far outside
        errors = [self._squared_error(rows, *grid, full[0]) for grid in (full, best)]
        return self._better(full, errors[0], best, errors[1])[0]

    def _squared_error(self, rows: Tensor, scale: Tensor, zero_point: Tensor, unit: Tensor) -> Tensor:
        """Squared error of each row, in units whose squares neither overflow nor vanish."""
        codes = torch.mul(rows, (1 / scale)[:, None]).add_(zero_point[:, None])
        values = codes.round_().clamp_(0, self.levels).sub_(zero_point[:, None]).mul_(scale[:, None])
        return values.sub_(rows).mul_((1 / unit)[:, None]).square_().sum(1)

    @staticmethod
    def _better(
        a: tuple[Tensor, Tensor], error: Tensor, b: tuple[Tensor, Tensor], other_error: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Row by row the grid with the smaller error, and that error."""
        scale, zero_point = (torch.where(other_error < error, b, a) for a, b in zip(a, b, strict=True))
        return (scale, zero_point), torch.minimum(error, other_error)

    def _range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.range == "percentile":
            outside = (1 - self.percentile / 100) / 2
            sorted_rows = rows.sort(1).values
            last_place = rows.shape[1] - 1
            cut = round(last_place * outside)
            low, high = sorted_rows[:, cut], sorted_rows[:, last_place - cut]
        else:
            low, high = rows.amin(1), rows.amax(1)  # much faster than aminmax
        return low.clamp_max(0), high.clamp_min(0)

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if self.symmetric:
            zero_point = torch.full_like(low, self.levels / 2)
            scale = round_up(torch.maximum(-low, high) / (self.levels / 2), self.scale_type)
            return scale, zero_point
        scale = round_up(high / self.levels - low / self.levels, self.scale_type)
        zero_point = (-low / scale).round_().clamp_(0, self.levels)
        if self.rounding == "stochastic" and self.bits > 1:
            # both ends must lie on the grid: what is beyond it could not keep its mean
            zero_point = zero_point.clamp(low.lt(0).float(), self.levels - high.gt(0).float())
            above, below = high / (self.levels - zero_point), -low / zero_point
            least_scale = torch.maximum(above.nan_to_num(), below.nan_to_num())
            scale = round_up(torch.maximum(scale, least_scale), self.scale_type)
        return scale, zero_point
