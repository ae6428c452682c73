"""Layers that train with quantization in mind: they compute with rounded values, gradients see no rounding.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; of the straight-through estimator, Bengio et al., 2013.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.quant.scales import SMALLEST
from fedsplit.quant.weight_grid import QuantizedWeights, WeightBits, quantize_weights

LARGEST_CODE = 255
"""Activations are unsigned: processors multiply them with signed weights."""
_MOMENTUM = 0.01
"""Weight of a new batch in a range after a hundred batches; until then a range is the mean over batches."""


def fake_quantized_weight(weight: Tensor, bits: WeightBits) -> Tensor:
    """Weights `(channels, ...)` rounded to their grid; gradients of the rounded ones are theirs."""
    with torch.no_grad():
        rounded = quantize_weights(weight, bits).values
    return rounded + (weight - weight.detach())  # exactly `rounded`, with the gradient of `weight`


class FakeQuantizedConv2d(nn.Conv2d):
    """A convolution that rounds its weights in each pass; `with_fake_quantized_weights` makes it."""

    weight_bits: WeightBits

    @override
    def forward(self, input: Tensor) -> Tensor:
        weight = fake_quantized_weight(self.weight, self.weight_bits)
        return cast(Tensor, self._conv_forward(input, weight, self.bias))


class FakeQuantizedLinear(nn.Linear):
    """A linear layer that rounds its weights in each pass; `with_fake_quantized_weights` makes it."""

    weight_bits: WeightBits

    @override
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, fake_quantized_weight(self.weight, self.weight_bits), self.bias)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FakeQuantizedConv2d,
    nn.Linear: FakeQuantizedLinear,
}


def has_quantizable_weights(layer: nn.Module) -> bool:
    """True if `with_fake_quantized_weights` takes a layer."""
    return type(layer) in _KINDS


def with_fake_quantized_weights(layer: nn.Module, bits: WeightBits) -> nn.Module:
    """The layer, changed in place: it keeps its parameters and their names."""
    layer.__class__ = _KINDS[type(layer)]
    layer.weight_bits = bits  # type: ignore[assignment]  # neither a tensor nor a module
    return layer


def as_ordinary_layer(layer: nn.Module) -> nn.Module:
    """The layer, changed in place to an ordinary one whose weights are those that it computed with."""
    assert isinstance(layer, FakeQuantizedConv2d | FakeQuantizedLinear)
    with torch.no_grad():
        layer.weight.copy_(weights_of(layer).values)
    ordinary = {rounding: kind for kind, rounding in _KINDS.items()}
    layer.__class__ = ordinary[type(layer)]  # type: ignore[assignment]  # what it was before
    return layer


def weights_of(layer: FakeQuantizedConv2d | FakeQuantizedLinear) -> QuantizedWeights:
    """Weights that the layer computes with."""
    return quantize_weights(layer.weight.detach(), layer.weight_bits)


class FakeQuantizedActivations(nn.Module):
    """Rounds activations to 8 bits, `(code - zero_point) * scale`, in a range that follows training batches.

    The range is a moving mean of the smallest and of the largest value of each batch, widened to hold 0,
    which is a code of its own. It is kept in buffers; scale and zero point follow from it in each pass.
    Until there was a batch, values go through as they are. Gradients of values beyond the range are 0.
    """

    running_min: Tensor
    running_max: Tensor
    num_batches_tracked: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_min", torch.zeros(()))
        self.register_buffer("running_max", torch.zeros(()))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    @override
    def forward(self, input: Tensor) -> Tensor:
        """The values, rounded; in training mode the range moves first."""
        if self.training:
            self._move(input.detach())
        rounded = torch.fake_quantize_per_tensor_affine(input, *self.grid(), 0, LARGEST_CODE)
        return torch.where(self.num_batches_tracked > 0, rounded, input)

    @torch.no_grad()
    def _move(self, input: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        share = (1 / self.num_batches_tracked).clamp_min(_MOMENTUM).to(input.dtype)
        low, high = torch.aminmax(input)
        self.running_min.lerp_(low, share)
        self.running_max.lerp_(high, share)

    @torch.no_grad()
    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32), both 0-d."""
        low, high = self.running_min.clamp_max(0), self.running_max.clamp_min(0)
        scale = ((high - low) / LARGEST_CODE).clamp_min(SMALLEST).to(torch.float32)
        return scale, (-low / scale).round().to(torch.int32)
