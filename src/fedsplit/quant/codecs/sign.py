"""Codec of one bit a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import ChannelDim, PositiveInt
from fedsplit.quant import bit_packing
from fedsplit.quant.codec import Quantizer
from fedsplit.quant.granularity import Granularity, GranularityName
from fedsplit.quant.message import Corrupt, expect
from fedsplit.quant.scales import ScaleType, pack_values, round_to_nearest, scale_bytes, unpack_values


@dataclass(frozen=True)
class Signs:
    """Signs of values `(r, k)`, 1 where not negative, uint8, and the mean magnitude `(r,)` of each row."""

    positive: Tensor
    magnitude: Tensor


class Sign(Quantizer[Signs]):
    """The sign of each value, times the mean magnitude of its row: for gradients and differences.

    Payload: magnitudes, a bit a value. Error: the distance of a value's magnitude to the mean.

    Source: J. Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018; the
    scale as in S. P. Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression
    Schemes", 2019.

    Args:
        granularity: division into rows that share a magnitude; it, `block_size` and `channel_dim` are those
            of `Granularity`.
    """

    def __init__(
        self,
        *,
        granularity: GranularityName = "block",
        block_size: PositiveInt = 64,
        channel_dim: ChannelDim | Literal["auto"] = "auto",
        scale_type: ScaleType = "bfloat16",
    ) -> None:
        self.granularity = Granularity(granularity, block_size, channel_dim)
        self.scale_type = scale_type

    @override
    def quantize(self, x: Tensor, seed: int) -> Signs:
        rows = self.granularity.split(x)
        values = torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float32, device=x.device)
        values[-1] -= rows.numel() - x.numel()  # the padding of a last block
        # divided before it is summed: a sum of huge values would overflow
        magnitude = (rows.abs() / values[:, None]).sum(1)
        return Signs((rows >= 0).to(torch.uint8), round_to_nearest(magnitude, self.scale_type))

    @override
    def dequantize(self, form: Signs, shape: Sequence[int]) -> Tensor:
        values = form.positive.to(torch.float32).mul_(2).sub_(1).mul_(form.magnitude[:, None])
        return self.granularity.join(values, shape)

    @override
    def pack(self, form: Signs, shape: Sequence[int]) -> bytes:
        signs = form.positive.reshape(-1)[: prod(shape)]
        return pack_values(form.magnitude, self.scale_type) + bit_packing.pack(signs, 1)

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Signs:
        expect(payload, self.size(shape))
        rows, length = self.granularity.rows_of(shape)
        magnitudes = rows * scale_bytes(self.scale_type)
        magnitude = unpack_values(payload[:magnitudes], self.scale_type)
        if (magnitude < 0).any():
            raise Corrupt("the payload has a magnitude below 0")
        signs = bit_packing.unpack(payload[magnitudes:], prod(shape), 1)
        padding = signs.new_zeros(rows * length - len(signs))
        return Signs(torch.cat([signs, padding]).view(rows, length), magnitude)

    @override
    def codes(self, form: Signs) -> Tensor:
        return form.positive

    @override
    def size(self, shape: Sequence[int]) -> int:
        rows, _ = self.granularity.rows_of(shape)
        magnitudes = rows * scale_bytes(self.scale_type)
        return magnitudes + bit_packing.packed_size(prod(shape), 1)

    @override
    def bound(self, x: Tensor) -> Tensor:
        magnitude = self.quantize(x, 0).magnitude.double()
        distance = (x.double().abs() - self.granularity.spread(magnitude, x.shape)).abs()
        return distance
