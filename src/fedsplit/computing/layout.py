"""How smashed data lie: as channels, even where the client model flattened them."""

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from fedsplit.computing.shapes import known_shape, note_shapes

_RESHAPES = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_ELEMENTWISE = (torch.relu, functional.relu, functional.gelu, functional.dropout, "relu")
ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardsigmoid,
)
"""Modules that change values one by one, and keep nothing."""
_STAY = (nn.Flatten, nn.Dropout, *ELEMENTWISE)
"""Operations that leave every value where it is among its sample's."""


def unflattened_shape(client: nn.Module, example: Tensor) -> tuple[int, ...]:
    """Shape of one sample of smashed data as it was before the client model flattened it.

    Args:
        client: a client model that `split` made.
        example: a batch of inputs.
    """
    graph = copy.deepcopy(client).eval()
    if not isinstance(graph, fx.GraphModule):  # code of the model's own, behind which nothing is flattened
        with torch.no_grad():
            return tuple(graph(example).shape[1:])
    with torch.no_grad():
        note_shapes(graph, example)
    (node,) = (each.args[0] for each in graph.graph.nodes if each.op == "output")
    shape = known_shape(node).shape
    while _leaves_in_place(graph, node):
        node = node.args[0]
        earlier = known_shape(node).shape
        if len(earlier) > len(shape):
            shape = earlier
    return tuple(shape[1:])


def _leaves_in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """True if an operation changes values one by one at most, and their order not at all."""
    if node.op == "call_module":
        leaves = isinstance(graph.get_submodule(str(node.target)), _STAY)
    else:
        leaves = node.target in (*_RESHAPES, *_ELEMENTWISE)
    earlier = node.args[0] if leaves and node.args else None
    if not isinstance(earlier, fx.Node):
        return False
    shapes = [known_shape(each).shape for each in (earlier, node)]
    return bool(shapes[0][0] == shapes[1][0])
