"""Bits where the variance is: uniform quantization with a number of bits for each channel, under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant import bit_packing
from fedsplit.quant.codec import Quantizer
from fedsplit.quant.codecs.affine_rows import AffineRows, QuantizedRows
from fedsplit.quant.granularity import Granularity
from fedsplit.quant.message import Corrupt, expect
from fedsplit.quant.scales import pack_values, round_to_nearest, scale_bytes, unpack_values

_DISTORTION = (1.0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.0003035, 0.0000869)
"""Squared error, as part of the variance, of the best uniform quantizer of 0 to 8 bits for a Gaussian.

Source: J. Max, "Quantizing for Minimum Distortion", 1960, table II.
"""
_MOST_BITS = len(_DISTORTION) - 1
ALLOCATED_BITS = range(1, _MOST_BITS + 1)
"""Bits per value that a channel can have, apart from none."""


@dataclass(frozen=True)
class AllocatedRows:
    """Bits `(r,)` of each row, int64; means of rows without any; codes of the other rows by their bits."""

    bits: Tensor
    means: Tensor
    rows_by_bits: dict[int, QuantizedRows]


class AllocatedAffine(Quantizer[AllocatedRows]):
    """Each channel gets the bits that its variance earns; one that gets none is decoded as its mean.

    One bit after the other goes to the channel whose squared error it lessens most (reverse
    water-filling, in whole bits), until the budget is spent on codes, scales and all else.

    Payload: four bits of bits a channel, means, then scales, zero points and codes of the channels of one
    bit, of two, and so on. Error: as of `Affine`; the distance to the mean in channels without bits.

    Source: T. M. Cover and J. A. Thomas, "Elements of Information Theory", 2006, section 10.3.3.

    Args:
        budget: bits a value, over the whole tensor; what describes rows without bits (4 bits and a mean each)
            is spent even where it is more.
        granularity: division into what is called channels here, see `Granularity`.
        quantizers: a quantizer of rows for each of `ALLOCATED_BITS`.
    """

    def __init__(self, budget: float, granularity: Granularity, rows: Sequence[AffineRows]) -> None:
        self.budget, self.granularity = budget, granularity
        self.quantizers = {quantizer.bits: quantizer for quantizer in rows}
        self.scale_type = rows[0].scale_type

    def allocation(self, rows: Tensor, count: int) -> Tensor:
        """Bits of each of `rows (r, k)`, int64 `(r,)`, for a tensor of `count` values."""
        beside = 8 * (bit_packing.packed_size(len(rows), 4) + self.quantizers[_MOST_BITS].size(len(rows), 0))
        affordable = int((self.budget * count - beside) / rows.shape[1])
        # in units of the largest value: squares of what is huge or tiny leave float32
        variance = (rows / rows.abs().max().clamp_min(torch.finfo(torch.float32).tiny)).var(1, correction=0)
        distortion = torch.tensor(_DISTORTION, dtype=torch.float32, device=rows.device)
        gains = variance[:, None] * (distortion[:-1] - distortion[1:])
        order = gains.flatten().sort(descending=True, stable=True).indices[: max(0, affordable)]
        worth = torch.zeros_like(gains).flatten()
        worth[order] = 1
        return (worth.view_as(gains) * (gains > 0)).sum(1).to(torch.int64)

    @override
    def quantize(self, x: Tensor, seed: int) -> AllocatedRows:
        rows = self.granularity.split(x)
        bits = self.allocation(rows, x.numel())
        bits_in_use = (width for width in _distinct(bits) if width)
        rows_by_bits = {
            width: self.quantizers[width].quantize(rows[bits == width], seed) for width in bits_in_use
        }
        return AllocatedRows(bits, self._means(rows[bits == 0]), rows_by_bits)

    def _means(self, rows: Tensor) -> Tensor:
        return round_to_nearest((rows / rows.shape[1]).sum(1), self.scale_type)

    @override
    def dequantize(self, form: AllocatedRows, shape: Sequence[int]) -> Tensor:
        rows = torch.empty(self.granularity.rows_of(shape), dtype=torch.float32, device=form.bits.device)
        rows[form.bits == 0] = form.means[:, None]
        for bits, rows_of_bits in form.rows_by_bits.items():
            rows[form.bits == bits] = self.quantizers[bits].dequantize(rows_of_bits)
        return self.granularity.join(rows, shape)

    @override
    def pack(self, form: AllocatedRows, shape: Sequence[int]) -> bytes:
        parts = [bit_packing.pack(form.bits, 4), pack_values(form.means, self.scale_type)]
        parts += [
            self.quantizers[bits].pack(rows, rows.codes.numel()) for bits, rows in form.rows_by_bits.items()
        ]
        return b"".join(parts)

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> AllocatedRows:
        count, length = self.granularity.rows_of(shape)
        start = bit_packing.packed_size(count, 4)
        bits = bit_packing.unpack(payload[:start], count, 4).to(torch.int64)
        if int(bits.max()) > _MOST_BITS:
            raise Corrupt(f"a channel has more than {_MOST_BITS} bits per value")
        row_counts = {width: int((bits == width).sum()) for width in _distinct(bits)}
        rows_without_bits = row_counts.pop(0, 0)
        sizes = {
            width: self.quantizers[width].size(rows, rows * length) for width, rows in row_counts.items()
        }
        means_size = rows_without_bits * scale_bytes(self.scale_type)
        expect(payload, start + means_size + sum(sizes.values()))
        means = unpack_values(payload[start : start + means_size], self.scale_type)
        start += means_size
        rows_by_bits = {}
        for width, rows in row_counts.items():
            rows_payload = payload[start : start + sizes[width]]
            rows_by_bits[width] = self.quantizers[width].unpack(rows_payload, rows, length, rows * length)
            start += sizes[width]
        return AllocatedRows(bits, means, rows_by_bits)

    @override
    def size(self, shape: Sequence[int]) -> None:
        return None  # it depends on the values

    @override
    def max_size(self, shape: Sequence[int]) -> int:
        rows, length = self.granularity.rows_of(shape)
        finest = self.quantizers[_MOST_BITS]
        return bit_packing.packed_size(rows, 4) + finest.size(rows, rows * length)

    @override
    def bound(self, x: Tensor) -> Tensor:
        rows = self.granularity.split(x)
        bits = self.allocation(rows, x.numel())
        rows_without_bits = rows[bits == 0]
        bound = torch.empty(rows.shape, dtype=torch.float64, device=x.device)
        bound[bits == 0] = (
            rows_without_bits.double() - self._means(rows_without_bits).double()[:, None]
        ).abs()
        for width in _distinct(bits):
            if width:
                bound[bits == width] = self.quantizers[width].error_bound(rows[bits == width])
        return self.granularity.join(bound, x.shape)


def _distinct(bits: Tensor) -> list[int]:
    return sorted(set(bits.tolist()))
