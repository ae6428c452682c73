"""The largest values, with where they stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import Share
from fedsplit.quant import bit_packing
from fedsplit.quant.bit_packing import from_bytes, to_bytes
from fedsplit.quant.codec import Quantizer
from fedsplit.quant.message import Corrupt, expect


@dataclass(frozen=True)
class Sparse:
    """Values `(r, k)`, bfloat16, and their places `(r, k)` in rows of what was coded, ascending."""

    values: Tensor
    places: Tensor


class TopK(Quantizer[Sparse]):
    """Largest magnitudes of each sample (of a tensor of one dimension: of all of it); the rest is 0.

    Payload: values in bfloat16, places in as many bits as the length of a sample needs. Error: 2^-8 of
    a value that is kept, and all of one that is not.

    Source: A. F. Aji and K. Heafield, "Sparse Communication for Distributed Gradient Descent", 2017.

    Args:
        fraction: fraction of the values that are kept, at least one of each sample.
    """

    def __init__(self, *, fraction: Share) -> None:
        self.fraction = fraction

    def rows_of(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Number of rows, their length, and the number of values of each that are kept."""
        rows = shape[0] if len(shape) > 1 else 1
        length = prod(shape) // max(1, rows)
        return rows, length, max(1, round(self.fraction * length))

    @override
    def quantize(self, x: Tensor, seed: int) -> Sparse:
        rows, length, _ = self.rows_of(x.shape)
        values = x.view(rows, length)
        places = self.select_places(values, seed).sort(1).values
        limits = torch.finfo(torch.bfloat16)
        values_to_send = values.gather(1, places).clamp_(limits.min, limits.max)
        return Sparse(values_to_send.to(torch.bfloat16), places)

    def select_places(self, rows: Tensor, seed: int) -> Tensor:
        """Select the places `(r, k)` of `rows (r, n)` whose values are sent."""
        _, _, k = self.rows_of(rows.shape)
        return rows.abs().topk(k, 1, sorted=False).indices

    @override
    def dequantize(self, form: Sparse, shape: Sequence[int]) -> Tensor:
        rows, length, _ = self.rows_of(shape)
        dense = torch.zeros(rows, length, dtype=torch.float32, device=form.values.device)
        return dense.scatter_(1, form.places, form.values.to(torch.float32)).view(tuple(shape))

    @override
    def pack(self, form: Sparse, shape: Sequence[int]) -> bytes:
        _, length, _ = self.rows_of(shape)
        return to_bytes(form.values) + bit_packing.pack(form.places.reshape(-1), _bits_below(length))

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Sparse:
        expect(payload, self.size(shape))
        rows, length, k = self.rows_of(shape)
        values = from_bytes(payload[: 2 * rows * k], torch.bfloat16).view(rows, k)
        places = bit_packing.unpack(payload[2 * rows * k :], rows * k, _bits_below(length))
        places = places.to(torch.int64).view(rows, k)
        if not torch.isfinite(values).all():
            raise Corrupt("the payload has a value that is not finite")
        if int(places.max()) >= length or (places.diff(dim=1) <= 0).any():
            raise Corrupt("the places within a sample must ascend, and be below its length")
        return Sparse(values, places)

    @override
    def size(self, shape: Sequence[int]) -> int:
        if prod(shape) == 0:
            return 0
        rows, length, k = self.rows_of(shape)
        return 2 * rows * k + bit_packing.packed_size(rows * k, _bits_below(length))

    @override
    def bound(self, x: Tensor) -> Tensor:
        """Largest error of each value: 2^-8 of it if at least the least that is kept, else all of it."""
        rows, length, k = self.rows_of(x.shape)
        values = x.double().abs().view(rows, length)
        least = values.topk(k, 1).values[:, -1:]
        limits = torch.finfo(torch.bfloat16)
        cast = values / 256 + limits.tiny + (values - limits.max).clamp_min(0)
        # values as large as the least that is kept may be kept or not
        return torch.where(values > least, cast, values).view(x.shape)


def _bits_below(length: int) -> int:
    """Bits of a place in a sample of this length, at least one."""
    return max(1, (length - 1).bit_length())
