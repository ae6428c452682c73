"""Client models that were trained for int8, in whole numbers: with the very scales that they trained with.

The graph says which values are codes of 8 bits, by the operations `quantize` and `dequantize` of PyTorch's
namespace `quantized_decomposed`, as torchao's PT2E writes them. Inductor makes of it a program on whole
numbers, and `torch.onnx.export` one with QuantizeLinear and DequantizeLinear for ONNX Runtime.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, sections 2 and 3.2.
"""

import copy
from dataclasses import dataclass
from functools import partial

import torch
import torch.ao.quantization.fx._decomposed  # it defines the namespace
import torch.nn.functional as F
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.models.rounding.fake_quantization import (
    LARGEST_CODE,
    FakeQuantizedActivations,
    FakeQuantizedConv2d,
    FakeQuantizedLinear,
    weights_of,
)
from fedsplit.models.rounding.quantized_training import is_folded, moves_values
from fedsplit.quant.scales import SMALLEST
from fedsplit.quant.weight_grid import along_channels

_DECOMPOSED = torch.ops.quantized_decomposed
_LARGEST_WEIGHT = 127
_LARGEST_BIAS = 2.0**30
"""Runtimes hold a bias as 32 bits, times the scale of the input, times that of the weights."""


def int8_graph(client: fx.GraphModule) -> fx.GraphModule:
    """A trained client model in evaluation mode, with its weights and activations as codes of 8 bits.

    A batch normalisation behind a convolution is folded into its scales and its bias.

    Args:
        client: made by `build_fake_quantized` with activations, and trained; it is left alone.

    Raises:
        ValueError: it was not trained, so that ranges are not known.
    """
    made = copy.deepcopy(client).eval()
    grids: dict[fx.Node, _Grid] = {}
    for node in list(made.graph.nodes):
        module = made.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, FakeQuantizedActivations):
            grid = _Grid.of(module)
            grids[grid.round_values(made.graph, node, node.all_input_nodes[0])] = grid
            made.graph.erase_node(node)
        elif isinstance(module, FakeQuantizedConv2d | FakeQuantizedLinear):
            _replace(made, node, module, grids.get(node.all_input_nodes[0]))
        elif moves_values(made, node) and node.all_input_nodes[0] in grids:
            # said again, so that runtimes move codes
            grid = grids[node.all_input_nodes[0]]
            grids[grid.round_values(made.graph, node, node)] = grid
    made.delete_all_unused_submodules()
    made.recompile()
    return made


@dataclass(frozen=True)
class _Grid:
    """Grid of activations: `(code - zero_point) * scale`, with codes from 0 to 255."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, activations: FakeQuantizedActivations) -> "_Grid":
        if not activations.num_batches_tracked:
            raise ValueError(
                "the client model was not trained with qat=true: it knows no ranges of activations"
            )
        scale, zero_point = activations.grid()
        return cls(scale.item(), int(zero_point))

    def round_values(self, graph: fx.Graph, place: fx.Node, values: fx.Node) -> fx.Node:
        """Round `values` behind `place`, for all who use what is computed there; the node that decodes."""
        numbers = (self.scale, self.zero_point, 0, LARGEST_CODE, torch.uint8)
        with graph.inserting_after(place):
            codes = graph.call_function(_DECOMPOSED.quantize_per_tensor.default, (values, *numbers))
        with graph.inserting_after(codes):
            decoded = graph.call_function(_DECOMPOSED.dequantize_per_tensor.default, (codes, *numbers))
        place.replace_all_uses_with(decoded, delete_user_cb=lambda user: user is not codes)
        return decoded


def _replace(
    module: fx.GraphModule,
    node: fx.Node,
    layer: FakeQuantizedConv2d | FakeQuantizedLinear,
    grid: _Grid | None,
) -> None:
    """Let a layer decode weights, and a batch normalisation that only follows it be part of it."""
    user = next(iter(node.users))
    norm = module.get_submodule(str(user.target)) if is_folded(module, user) else None
    name = f"int8_{node.name}"  # named after the operation: layers used twice may be folded differently
    assert norm is None or isinstance(norm, nn.BatchNorm2d)
    module.add_submodule(name, _Int8Layer(layer, norm, grid))
    node.target = name
    if norm is not None:
        user.replace_all_uses_with(node)
        module.graph.erase_node(user)


class _Int8Layer(nn.Module):
    """A convolution or a linear layer that decodes its weights in each pass: int8, a scale a channel."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(
        self,
        layer: FakeQuantizedConv2d | FakeQuantizedLinear,
        norm: nn.BatchNorm2d | None,
        grid: _Grid | None,
    ) -> None:
        super().__init__()
        weights = weights_of(layer)
        factor, bias = _fold(norm, layer)
        values = weights.values * along_channels(factor, weights.codes)
        scales = (weights.scale * factor.abs()).clamp_min(SMALLEST)
        if grid is not None and bias is not None:  # channels that are next to nothing beside their bias
            scales = scales.maximum(bias.abs() / (_LARGEST_BIAS * grid.scale))
        self.register_buffer("codes", (values / along_channels(scales, values)).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int64))
        self.register_buffer("bias", bias)
        self._padding: tuple[list[int], str] | None = None
        self._product = F.linear
        if isinstance(layer, FakeQuantizedConv2d):
            padding: str | tuple[int, ...] = layer.padding
            if layer.padding_mode != "zeros":
                self._padding, padding = (layer._reversed_padding_repeated_twice, layer.padding_mode), (0, 0)
            self._product = partial(
                F.conv2d, stride=layer.stride, padding=padding, dilation=layer.dilation, groups=layer.groups
            )

    @override
    def forward(self, input: Tensor) -> Tensor:
        weight = _DECOMPOSED.dequantize_per_channel(
            self.codes, self.scales, self.zeros, 0, -_LARGEST_WEIGHT, _LARGEST_WEIGHT, torch.int8
        )
        if self._padding is not None:
            input = F.pad(input, *self._padding)
        return self._product(input, weight, self.bias)


def _fold(
    norm: nn.BatchNorm2d | None, layer: FakeQuantizedConv2d | FakeQuantizedLinear
) -> tuple[Tensor, Tensor | None]:
    """Effect of a batch normalisation on the layer before it: a factor a channel, and the new bias."""
    own = None if layer.bias is None else layer.bias.detach()
    if norm is None:
        return layer.weight.new_ones(len(layer.weight)), own
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    shift = torch.zeros_like(factor) if norm.bias is None else norm.bias.detach()
    if norm.weight is not None:
        factor = factor * norm.weight.detach()
    return factor, shift + ((0 if own is None else own) - norm.running_mean) * factor
