"""Cuts an ordinary module at a named submodule into a client model and a server model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod

import torch
from torch import Tensor, fx, nn

from fedsplit.errors import UserError
from fedsplit.models.cuts import Cut, Cuts
from fedsplit.models.tracing import copied


@dataclass(frozen=True)
class SplitModel:
    """The two halves of a model. Their state dicts together are the original's, key for key.

    Args:
        client: from inputs to smashed data.
        server: from smashed data to logits.
        crossing: shape of one sample of each tensor that crosses. Where there are several, smashed data
            are all of them, flattened, one behind the other: `(n, f)`.
    """

    client: nn.Module
    server: nn.Module
    crossing: tuple[tuple[int, ...], ...]


def split(module: nn.Module, cut: str, example: Tensor, *, untie: bool = False) -> SplitModel:
    """Cut `module` after the last operation of its submodule `cut`.

    The graph of the module is traced, its list of nodes is cut in two, and each part becomes a module
    that owns its parameters and buffers under their original names. `module` itself is left alone.

    Args:
        module: what to cut; `torch.fx` must be able to trace it, its submodules need not be.
        cut: dotted name of a submodule, such as `layer2` or `features.5`.
        example: a batch of inputs, on which the halves must give what `module` gives.
        untie: let parameters that are one and the same in `module` go separate ways, each with its name.

    Raises:
        UserError: the module cannot be traced, or cannot be cut there; names the cuts that are possible.
    """
    module = copied(module)
    cuts = Cuts(module, example)
    chosen = cuts.get(cut)
    if chosen is None or chosen.obstacle is not None:
        reason = "not a part of this model" if chosen is None else f"{chosen.obstacle}"
        possible = ", ".join(each.name for each in cuts.possible) or "none"
        raise UserError("model.cut", cut, f"{reason}; possible cuts: {possible}")
    _separate_tied(module, cuts.nodes, chosen, untie=untie)
    parts = SplitModel(
        client=fx.GraphModule(module, _client_graph(cuts.nodes[: chosen.end], chosen), "ClientModel"),
        server=fx.GraphModule(module, _server_graph(module, cuts.nodes[chosen.end :], chosen), "ServerModel"),
        crossing=tuple(chosen.shapes),
    )
    _assert_equal(module, parts, example)
    return parts


def _client_graph(nodes: Sequence[fx.Node], cut: Cut) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    leaving = [copies[node] for node in cut.crossing]
    if len(leaving) > 1:
        flat = [graph.call_function(torch.flatten, (node, 1)) for node in leaving]
        leaving = [graph.call_function(torch.cat, (flat, 1))]
    graph.output(leaving[0])
    return graph


def _server_graph(module: nn.Module, nodes: Sequence[fx.Node], cut: Cut) -> fx.Graph:
    graph = fx.Graph()
    z = graph.placeholder("z")
    if any(_is_inplace(module, node) for node in nodes):
        # Smashed data is a leaf to the server and not to be written to, be it through a view of it.
        z = graph.call_method("clone", (z,))
    copies = {cut.crossing[0]: z}
    if len(cut.crossing) > 1:
        start = 0
        for node, shape in zip(cut.crossing, cut.shapes, strict=True):
            part = graph.call_function(torch.narrow, (z, 1, start, prod(shape)))
            copies[node] = graph.call_method("reshape", (part, (-1, *shape)))
            start += prod(shape)
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _is_inplace(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(
            getattr(each, "inplace", False) for each in module.get_submodule(str(node.target)).modules()
        )
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace", False))


def _separate_tied(module: nn.Module, nodes: Sequence[fx.Node], cut: Cut, *, untie: bool) -> None:
    """Refuse, or undo, that one parameter goes by several names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = [group for group in names.values() if len(group) > 1]
    if tied and not untie:
        told = f"{' and '.join(tied[0])} are one and the same; model.untie=true lets them go separate ways"
        raise UserError("model.cut", cut.name, told)
    for name in chain.from_iterable(group[1:] for group in tied):
        owner, _, attribute = name.rpartition(".")
        original = module.get_parameter(name)
        copy = nn.Parameter(original.detach().clone(), requires_grad=original.requires_grad)
        setattr(module.get_submodule(owner), attribute, copy)


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
        whole, halves = module(example), parts.server(parts.client(example))
    for part in (module, parts.client, parts.server):
        part.train(training)
    # what was packed comes out in another memory format, in which other kernels may run
    equal = (
        torch.equal(whole, halves) if len(parts.crossing) == 1 else torch.allclose(whole, halves, 1e-4, 1e-5)
    )
    if not equal:
        raise AssertionError(f"the halves of {type(module).__name__} do not compute what the whole computes")
