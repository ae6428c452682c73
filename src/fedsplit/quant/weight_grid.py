"""The grid of a layer's weights: whole numbers of a few bits, times a scale for each output channel.

A grid is symmetric, and a channel multiplied by a number keeps its whole numbers but for their sign. So it
does not matter whether weights are rounded before a batch normalisation is folded into them, or after.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from fedsplit.quant.codecs.affine_rows import AffineRows
from fedsplit.quant.scales import SMALLEST

WeightBits: TypeAlias = Literal[16, 8, 4, 2, 1]


@dataclass(frozen=True)
class QuantizedWeights:
    """Codes, whole numbers as floating-point ones in the shape of the weights, and scales `(channels,)`.

    Args:
        codes: codes from `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`; of one bit -1 and 1.
    """

    codes: Tensor
    scale: Tensor

    @property
    def values(self) -> Tensor:
        """Weights as codes times scales."""
        return self.codes * along_channels(self.scale, self.codes)


def quantize_weights(weight: Tensor, bits: WeightBits) -> QuantizedWeights:
    """Quantize weights `(channels, ...)` to their grid, each to the nearest number.

    The scale lets a channel's largest weight fit. With 4 bits or 2 that would waste most of the few numbers
    there are: there it is the fraction of that scale with the least squared error. One bit is the sign times
    the mean absolute value, which has the least squared error too.

    Source of the last: Rastegari et al., "XNOR-Net", 2016, section 3.1.
    """
    if bits == 1:
        scale = weight.flatten(1).abs().mean(1).clamp_min(SMALLEST)
        return QuantizedWeights((weight >= 0).to(weight.dtype).mul_(2).sub_(1), scale)
    scale, _ = AffineRows(bits, range="minmax" if bits >= 8 else "mse").grid(weight.flatten(1))
    largest = (1 << (bits - 1)) - 1
    codes = (weight / along_channels(scale, weight)).round_().clamp_(-largest, largest)
    return QuantizedWeights(codes, scale)


def along_channels(values: Tensor, weight: Tensor) -> Tensor:
    """Reshape values `(channels,)` so that they multiply weights `(channels, ...)`."""
    return values.view(-1, *(1 for _ in weight.shape[1:]))
