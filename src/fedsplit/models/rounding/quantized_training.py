"""Turns a client model into one that trains with quantization in mind.

PyTorch's own way, `prepare_qat_pt2e`, is not taken: docs/quantized-training.md says why.
"""

import copy
import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fedsplit.computing.hooks import copy_with_hooks
from fedsplit.computing.shapes import note_shapes, shape_at
from fedsplit.errors import UserError
from fedsplit.models.rounding.fake_quantization import (
    FakeQuantizedActivations,
    FakeQuantizedConv2d,
    FakeQuantizedLinear,
    as_ordinary_layer,
    has_quantizable_weights,
    with_fake_quantized_weights,
)
from fedsplit.models.splitting.cuts import evaluating
from fedsplit.quant.weight_grid import WeightBits

RANGES = "activation_ranges"
"""Prefix of the ranges of activations in a state dict: `activation_ranges.<operation>.running_min`, ..."""

_CLAMPS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, F.relu, F.relu6, F.hardtanh, torch.relu, "relu", "relu_")
"""Merged with the operation before them when a model is deployed."""
_MOVES = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.MaxPool2d, nn.AdaptiveMaxPool2d),
    *(nn.Dropout, nn.Dropout2d, F.dropout, F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d),
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze),
    *("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "clone"),
    operator.getitem,
)
"""Operations that only choose, move or drop values: what was rounded before them still is."""


@dataclass(frozen=True)
class FakeQuantization:
    """Rounding of a client model while it trains.

    Args:
        weight_bits: bits of the weights of convolutions and linear layers.
        activations: True if activations are rounded too, to 8 bits.
    """

    weight_bits: WeightBits
    activations: bool

    @classmethod
    def from_keys(cls, *, qat: bool, weight_bits: WeightBits | None) -> "FakeQuantization | None":
        """Make the rounding that the keys `qat` and `weight_bits` ask for; None where nothing is rounded."""
        return cls(weight_bits or 8, qat) if qat or weight_bits else None


def build_fake_quantized(client: nn.Module, example: Tensor, chosen: FakeQuantization) -> fx.GraphModule:
    """A client model that computes as a quantized one would; the one it is given is left alone.

    Parameters and buffers keep their names; with activations there are ranges besides (see `RANGES`).

    Args:
        client: a client model that `split` made.
        example: a batch of its inputs.

    Raises:
        UserError: it has nothing that can be quantized.
    """
    made = copy_with_hooks(client)
    assert isinstance(made, fx.GraphModule)
    layers = {str(node.target): made.get_submodule(str(node.target)) for node in _calls(made)}
    weighted = {name: layer for name, layer in layers.items() if has_quantizable_weights(layer)}
    if not weighted:
        key, value = ("qat", True) if chosen.activations else ("weight_bits", chosen.weight_bits)
        raise UserError(
            key, value, "the client model has no convolution and no linear layer; cut it elsewhere"
        )
    if chosen.activations:
        _round_activations(made, example)
    for layer in weighted.values():
        with_fake_quantized_weights(layer, chosen.weight_bits)
    return made


def as_floats(client: fx.GraphModule) -> fx.GraphModule:
    """An ordinary client model of one that `build_fake_quantized` made, which is left alone.

    Its weights are those that the rounding one computes with; it rounds no activations and has no ranges.
    """
    made = copy.deepcopy(client)
    for node in _calls(made):
        layer = made.get_submodule(str(node.target))
        if isinstance(layer, FakeQuantizedActivations):
            node.replace_all_uses_with(node.all_input_nodes[0])
            made.graph.erase_node(node)
        elif isinstance(layer, FakeQuantizedConv2d | FakeQuantizedLinear):
            as_ordinary_layer(layer)
    made.delete_all_unused_submodules()
    made.recompile()
    return made


def _calls(module: fx.GraphModule) -> list[fx.Node]:
    return [node for node in module.graph.nodes if node.op == "call_module"]


def _round_activations(module: fx.GraphModule, example: Tensor) -> None:
    if hasattr(module, RANGES):
        raise UserError("qat", True, f"the model has a part {RANGES!r} of its own: give it another name")
    with evaluating(module):
        note_shapes(module, example)
    module.add_submodule(RANGES, nn.Module())
    for node in list(module.graph.nodes):
        if not _is_rounded(module, node):
            continue
        path = f"{RANGES}.{node.name}"
        module.add_submodule(path, FakeQuantizedActivations().to(example.device).train(module.training))
        with module.graph.inserting_after(node):
            rounded = module.graph.call_module(path, (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user, own=rounded: user is not own)
    module.recompile()


def _is_rounded(module: fx.GraphModule, node: fx.Node) -> bool:
    """True if a deployed model would round here: not between operations that it computes as one."""
    if node.op in ("get_attr", "output") or moves_values(module, node):
        return False
    found = shape_at(node)
    if found is None or not found.dtype.is_floating_point:
        return False
    if len(node.users) > 1:
        return True
    (user,) = node.users
    return not (kind_of(module, user) in _CLAMPS or is_folded(module, user))


def kind_of(module: fx.GraphModule, node: fx.Node) -> object:
    """Kind of an operation: the class of a module, a function, or the name of a method."""
    return type(module.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def moves_values(module: fx.GraphModule, node: fx.Node) -> bool:
    """True if an operation only chooses, moves or drops values."""
    return node.op != "placeholder" and kind_of(module, node) in _MOVES


def is_folded(module: fx.GraphModule, node: fx.Node) -> bool:
    """True if an operation is a batch normalisation that becomes part of the layer before it."""
    if kind_of(module, node) is not nn.BatchNorm2d:
        return False
    before = node.all_input_nodes[0]
    if before.op != "call_module" or len(before.users) > 1:
        return False
    norm, layer = (module.get_submodule(str(each.target)) for each in (node, before))
    return isinstance(layer, nn.Conv2d) and norm.running_mean is not None
