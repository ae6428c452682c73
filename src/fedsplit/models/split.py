"""Cuts an ordinary module at a named submodule into a client model and a server model."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from fedsplit.errors import UserError


@dataclass(frozen=True)
class SplitModel:
    """The two halves of a model. Their state dicts together are the original's, key for key."""

    client: nn.Module
    server: nn.Module


def split(module: nn.Module, cut: str, example: Tensor) -> SplitModel:
    """Cut `module` after the last operation of its submodule `cut`.

    The graph of the module is traced, its list of nodes is cut in two, and each part becomes a module
    that owns its parameters and buffers under their original names. `module` itself is left alone.

    Args:
        module: what to cut; `torch.fx` must be able to trace it.
        cut: dotted name of a submodule, such as `layer2` or `features.5`.
        example: a batch of inputs, on which the halves must give bit for bit what `module` gives.

    Raises:
        UserError: the module cannot be traced, or cannot be cut there; names the cuts that are possible.
    """
    module = copy.deepcopy(module)
    nodes = _trace(module)
    ends = _ends(nodes)
    possible = {
        name: end
        for name, end in ends.items()
        if len(_crossing(nodes, end)) == 1 and _both_train(module, nodes, end)
    }
    if cut not in possible:
        reason = (
            "not a part of this model"
            if cut not in ends
            else "one tensor must cross, and both halves must learn"
        )
        raise UserError("model.cut", cut, f"{reason}; possible cuts: {', '.join(possible) or 'none'}")
    end = possible[cut]
    (crossing,) = _crossing(nodes, end)
    parts = SplitModel(
        client=fx.GraphModule(module, _client_graph(nodes[:end], crossing), "ClientModel"),
        server=fx.GraphModule(module, _server_graph(module, nodes[end:], crossing), "ServerModel"),
    )
    _assert_equal(module, parts, example)
    return parts


def unflattened(client: nn.Module, example: Tensor) -> tuple[int, ...]:
    """Shape of one sample of smashed data as it was before the client model flattened it.

    Args:
        client: a client model that `split` made.
        example: a batch of inputs.
    """
    graph = copy.deepcopy(client).eval()
    assert isinstance(graph, fx.GraphModule)
    with torch.no_grad():
        ShapeProp(graph).propagate(example)
    (node,) = (each.args[0] for each in graph.graph.nodes if each.op == "output")
    shape = node.meta["tensor_meta"].shape
    while _leaves_in_place(graph, node):
        node = node.args[0]
        earlier = node.meta["tensor_meta"].shape
        if len(earlier) > len(shape):
            shape = earlier
    return tuple(shape[1:])


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


def _leaves_in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation changes values one by one at most, and their order not at all."""
    if node.op == "call_module":
        leaves = isinstance(graph.get_submodule(str(node.target)), _STAY)
    else:
        leaves = node.target in (*_RESHAPES, *_ELEMENTWISE)
    earlier = node.args[0] if leaves and node.args else None
    if not isinstance(earlier, fx.Node):
        return False
    shapes = [each.meta["tensor_meta"].shape for each in (earlier, node)]
    return bool(shapes[0][0] == shapes[1][0])


class Tracer(fx.Tracer):
    """Looks into every module but torch's own and those that say they are one operation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or getattr(m, "is_one_operation", False)


def _trace(module: nn.Module) -> list[fx.Node]:
    try:
        return list(Tracer().trace(module).nodes)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:  # RuntimeError: forward calls `len`
        raise UserError(
            "model", type(module).__name__, f"a module that torch.fx can trace ({error})"
        ) from error


def _ends(nodes: list[fx.Node]) -> dict[str, int]:
    """By name of submodule: how many nodes come up to and with its last one."""
    ends: dict[str, int] = {}
    for position, node in enumerate(nodes):
        names = {path for path, _ in node.meta.get("nn_module_stack", {}).values()} - {""}
        if node.op == "call_module":
            names.add(str(node.target))
        ends.update(dict.fromkeys(names, position + 1))
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _crossing(nodes: list[fx.Node], end: int) -> list[fx.Node]:
    """Values computed before the cut and used after it."""
    after = set(nodes[end:])
    return [node for node in nodes[:end] if after.intersection(node.users)]


def _both_train(module: nn.Module, nodes: list[fx.Node], end: int) -> bool:
    """Whether each half owns parameters."""

    def owns(part: list[fx.Node]) -> bool:
        names = tuple(f"{node.target}." for node in part if node.op == "call_module")
        names += tuple(f"{node.target}" for node in part if node.op == "get_attr")
        return any(name.startswith(names) for name, _ in module.named_parameters()) if names else False

    return owns(nodes[:end]) and owns(nodes[end:])


def _client_graph(nodes: list[fx.Node], crossing: fx.Node) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[crossing])
    return graph


def _server_graph(module: nn.Module, nodes: list[fx.Node], crossing: fx.Node) -> fx.Graph:
    graph = fx.Graph()
    z = graph.placeholder("z")
    if any(_is_inplace(module, node) for node in nodes):
        # Smashed data is a leaf to the server and not to be written to, be it through a view of it.
        z = graph.call_method("clone", (z,))
    copies = {crossing: z}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _is_inplace(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace", False))


def _assert_equal(module: nn.Module, parts: SplitModel, example: Tensor) -> None:
    keys = [set(part.state_dict()) for part in (parts.client, parts.server)]
    shared, missing = keys[0] & keys[1], set(module.state_dict()) - keys[0] - keys[1]
    if shared or missing:
        words = "are used on both sides of the cut" if shared else "are used on no side of the cut"
        raise UserError("model", type(module).__name__, f"{', '.join(sorted(shared or missing))} {words}")
    training = module.training
    for part in (module, parts.client, parts.server):
        part.eval()
    with torch.no_grad():
        equal = torch.equal(module(example), parts.server(parts.client(example)))
    for part in (module, parts.client, parts.server):
        part.train(training)
    if not equal:
        raise AssertionError(f"the halves of {type(module).__name__} do not compute what the whole computes")
