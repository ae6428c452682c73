"""Cuts an ordinary module at a named submodule into a client model and a server model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, fx, nn

from fedsplit.computing.hooks import copied, is_hooked, refuse_what_is_lost
from fedsplit.computing.tracing import graph_module
from fedsplit.errors import UserError
from fedsplit.models.splitting.cuts import Cut, Cuts, evaluating
from fedsplit.models.splitting.probed import ProbedCut, ProbedCuts
from fedsplit.models.splitting.probing import looks_at_values, probes
from fedsplit.models.splitting.tied import tied


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

    @property
    def padding(self) -> float:
        """What smashed data are behind the end of a sample of text: NaN where padding matters to the model."""
        return math.nan if getattr(self.server, "needs_padding", False) else 0.0


def split(module: nn.Module, cut: str, example: Tensor) -> SplitModel:
    """Cut `module` after the last operation of its submodule `cut`.

    The graph of the module is traced, its list of nodes is cut in two, and each part becomes a module
    that owns its parameters and buffers under their original names. Where the module cannot be traced, both
    halves run its own code (see `ProbedCuts`). `module` itself is left alone.

    Args:
        module: what to cut.
        cut: dotted name of a submodule, such as `layer2` or `features.5`.
        example: a batch of inputs, on which the halves must give what `module` gives.

    Which parameters learn, hooks of submodules and of parameters, and what the module's own `train` does to
    the modes of its parts are as in `module`.

    Raises:
        UserError: the module cannot be traced, or cannot be cut there; names the cuts that are possible. Or
            parameters of it are tied: halves hold, send and step on weights by their names. See `untied`.
            Or nothing in it learns, or it has something that halves cannot have.
    """
    for names in tied(module):
        told = f"{' and '.join(names)} are one and the same; model.untie=true lets them go separate ways"
        raise UserError("model", type(module).__name__, told)
    refuse_what_is_lost(module)
    module = copied(module)
    cuts = find_cuts(module, example)
    chosen = cuts.get(cut)
    if chosen is None or chosen.obstacle is not None:
        reason = _why_absent(module, cut) if chosen is None else f"{chosen.obstacle}"
        raise UserError("model.cut", cut, f"{reason}; possible cuts: {_told(cuts)}")
    parts = divided(cuts, chosen)
    for x in (example,) if isinstance(cuts, Cuts) else (example, *cuts.trials()):
        _assert_equal(module, parts, x)
    _freeze_unreached(parts, example)
    return parts


def find_cuts(module: nn.Module, example: Tensor) -> Cuts | ProbedCuts:
    """All places where a module could be cut.

    Raises:
        UserError: the module cannot be traced, and what it does may depend on values.
    """
    if _is_of_transformers(module):
        return ProbedCuts(module, example)
    try:
        return Cuts(module, example)
    except UserError:
        if looks_at_values(module, probes(example)):
            raise
        cuts = ProbedCuts(module, example)
        if not cuts.possible:
            raise
        return cuts


def _is_of_transformers(module: nn.Module) -> bool:
    """Whether there is code of that library in it, which cannot be traced."""
    kinds = {base for part in module.modules() for base in type(part).__mro__}
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in kinds)


def divided(cuts: Cuts | ProbedCuts, cut: Cut | ProbedCut) -> SplitModel:
    """The two halves, which share what they hold with the module that `cuts` are of; unchecked.

    Args:
        cuts: of the module.
        cut: one that is possible.
    """
    if isinstance(cuts, ProbedCuts):
        assert isinstance(cut, ProbedCut)
        client, server, crossing = cuts.divided(cut)
        return SplitModel(client, server, (crossing,))
    assert isinstance(cut, Cut)
    module, nodes = cuts.module, cuts.nodes
    return SplitModel(
        client=graph_module(module, _client_graph(nodes[: cut.end], cut), "ClientModel", cuts.modes),
        server=graph_module(module, _server_graph(module, nodes[cut.end :], cut), "ServerModel", cuts.modes),
        crossing=tuple(cut.shapes),
    )


def _why_absent(module: nn.Module, cut: str) -> str:
    """Why there is no such place."""
    parts = dict(module.named_modules())
    above = [cut[:end] for end, letter in enumerate(cut) if letter == "." and cut in parts]
    hooked = next((name for name in above if is_hooked(parts[name])), None)
    return f"inside of {hooked}, whose hooks need it whole" if hooked else "not a part of this model"


_MANY = 20


def _told(cuts: Cuts | ProbedCuts) -> str:
    """The possible cuts; of many, the stages."""
    possible = cuts.possible
    shown = possible if len(possible) <= _MANY else cuts.stages()
    others = len(possible) - len(shown)
    names = ", ".join(each.name for each in shown) or "none"
    return f"{names}, and {others} inside of them, which task=cuts shows" if others > 0 else names


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
    for node in cut.counts:
        copies[node] = graph.call_method("size", (z, 0))
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


def _freeze_unreached(parts: SplitModel, example: Tensor) -> None:
    """Let parameters that no gradient reaches be frozen ones: PyTorch's optimizers pass over both."""
    inputs = example
    for half in (parts.client, parts.server):
        trained = [parameter for parameter in half.parameters() if parameter.requires_grad]
        with evaluating(half), torch.enable_grad():
            half.train()
            inputs = inputs.detach()
            if inputs.is_floating_point():
                inputs = inputs.requires_grad_().clone()  # which may be written to
            output = half(inputs)
            reached: Sequence[Tensor | None] = [None] * len(trained)
            if output.requires_grad and trained:
                reached = torch.autograd.grad(output.sum(), trained, allow_unused=True)
        for parameter, gradient in zip(trained, reached, strict=True):
            parameter.requires_grad_(gradient is not None)
        inputs = output


def _assert_equal(module: nn.Module, parts: SplitModel, example: Tensor) -> None:
    held = [key for part in (parts.client, parts.server) for key in part.state_dict()]
    if unused := sorted(set(module.state_dict()) - set(held)):
        told = f"{', '.join(unused)} are never used"
        raise UserError("model", type(module).__name__, told)
    assert len(held) == len(set(held)), "a cut divides what the module holds"
    with evaluating(module, parts.client, parts.server):
        whole = module(example)
    with evaluating(parts.client, parts.server):
        halves = parts.server(parts.client(example))
    # What was packed comes out in another memory format, in which other kernels may run. Untrained networks
    # of a thousand layers overflow.
    far = (0.0, 0.0) if len(parts.crossing) == 1 else (1e-4, 1e-5)
    equal = torch.allclose(whole, halves, *far, equal_nan=True)
    if not equal:
        told = "its halves do not give what the whole gives: it keeps what it computes, or draws elsewhere"
        raise UserError("model", type(module).__name__, told)
