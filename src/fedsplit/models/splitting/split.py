"""Cuts an ordinary module at a named submodule into a client model and a server model, or at two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, fx, nn

from fedsplit.computing.hooks import copy_with_hooks, has_hooks, refuse_lost_hooks_and_parts
from fedsplit.computing.tracing import Untraceable, graph_module
from fedsplit.errors import UserError
from fedsplit.machine.terminal import note
from fedsplit.models.splitting.cuts import NOTHING_LEARNS_AFTER, Cut, Cuts, evaluating
from fedsplit.models.splitting.probed import ProbedCut, ProbedCuts
from fedsplit.models.splitting.tied import tied_groups
from fedsplit.models.splitting.unknown import ValuesElsewhere


@dataclass(frozen=True)
class SplitModel:
    """The two halves of a model. Their state dicts together are the original's, key for key.

    A model that is cut twice (U-shaped) has three parts: the client also holds what is behind the server's.

    Args:
        client: model from inputs to smashed data.
        server: model from smashed data to logits; the trunk of a model with a tail, to the tail's inputs.
        crossing: shape of one sample of each tensor that crosses. Where there are several, smashed data
            are all of them, flattened, one behind the other: `(n, f)`.
        tail: model from the trunk's outputs to logits; None where the model is cut once.
    """

    client: nn.Module
    server: nn.Module
    crossing: tuple[tuple[int, ...], ...]
    tail: nn.Module | None = None

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The parts, in the order in which data pass them."""
        return (self.client, self.server) if self.tail is None else (self.client, self.server, self.tail)

    @property
    def at_client(self) -> tuple[nn.Module, ...]:
        """The parts that clients hold."""
        return (self.client,) if self.tail is None else (self.client, self.tail)

    @property
    def padding(self) -> float:
        """Values of smashed data behind the end of a text: NaN where padding matters to the model."""
        return math.nan if getattr(self.server, "marks_padding", False) else 0.0


def split(module: nn.Module, cut: str, example: Tensor, tail_cut: str | None = None) -> SplitModel:
    """Cut `module` after the last operation of its submodule `cut`.

    The graph of the module is traced, its list of nodes is cut in two, and each part becomes a module
    that owns its parameters and buffers under their original names. `module` itself is left alone.

    Of a model of the transformers library, both halves run its own code (see `ProbedCuts`); so do those of
    one with `halves_run_own_code = True`, and of one that cannot be traced, which is told in a line. Unless
    the model is of that library, a server half that needs what only clients have fails, in whatever pass.

    Args:
        module: model to split.
        cut: dotted name of a submodule, such as `layer2` or `features.5`.
        example: a batch of inputs, on which the halves must give what `module` gives.
        tail_cut: likewise, of the second cut; None: there is one cut.

    Which parameters learn, hooks of submodules and of parameters, and what the module's own `train` does to
    the modes of its parts are as in `module`.

    Raises:
        UserError: the module cannot be traced, or cannot be cut there; names the cuts that are possible. Or
            parameters of it are tied: halves hold, send and step on weights by name. See `copy_without_ties`.
            Or nothing in it learns, or it has something that halves cannot have.
    """
    for names in tied_groups(module):
        message = f"{' and '.join(names)} are one and the same; model.untie=true lets them go separate ways"
        raise UserError("model", type(module).__name__, message)
    refuse_lost_hooks_and_parts(module)
    module = copy_with_hooks(module)
    cuts = find_cuts(module, example)
    chosen = cuts.get(cut)
    if chosen is None or chosen.obstacle is not None:
        reason = _why_absent(module, cut) if chosen is None else f"{chosen.obstacle}"
        raise UserError("model.cut", cut, f"{reason}; possible cuts: {_list_cuts(cuts)}")
    tail = None if tail_cut is None else _tail(cuts, chosen, tail_cut)
    parts = divide(cuts, chosen, tail)
    if tail is not None and not any(each.requires_grad for each in parts.server.parameters()):
        raise UserError("model.tail_cut", tail_cut, f"nothing between it and model.cut={cut} learns")
    packed = len(parts.crossing) > 1 or (tail is not None and len(tail.crossing) > 1)
    if isinstance(cuts, Cuts):
        _assert_equal(module, parts, example, packed=packed)
        _freeze_without_gradient(parts, example)
        return parts
    try:
        for x in (example, *cuts.trials()):
            _assert_equal(module, parts, x, packed=packed)
        _freeze_without_gradient(parts, example)
    except ValuesElsewhere as error:
        before = "" if cuts.untraceable is None else f"{cuts.untraceable.allowed}; run as it is, "
        message = f"{before}its server half cannot be: {error}"
        raise UserError("model", type(module).__name__, message) from error
    if cuts.untraceable is not None:
        reason = cuts.untraceable.allowed.partition(";")[0]
        note(f"model={type(module).__name__}: {reason}; both halves run all of its code")
    return parts


def find_cuts(module: nn.Module, example: Tensor) -> Cuts | ProbedCuts:
    """All places where a module could be cut.

    Raises:
        UserError: the module can neither be traced nor be cut between parts of it as they run.
    """
    if _is_of_transformers(module):
        return ProbedCuts(module, example)
    if getattr(module, "halves_run_own_code", False):
        return ProbedCuts(module, example, guarded=True)
    try:
        return Cuts(module, example)
    except Untraceable as error:
        cuts = ProbedCuts(module, example, guarded=True, untraceable=error)
        if not cuts.possible:
            raise
        return cuts


def _is_of_transformers(module: nn.Module) -> bool:
    """True if a module is of the transformers library, whose code cannot be traced."""
    kinds = {base for part in module.modules() for base in type(part).__mro__}
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in kinds)


def _tail(cuts: Cuts | ProbedCuts, cut: Cut | ProbedCut, name: str) -> Cut:
    """The second cut; refused where a tail cannot begin there."""
    if not isinstance(cuts, Cuts):
        message = "must be null with this model, whose code cannot be traced"
        raise UserError("model.tail_cut", name, message)
    tail = cuts.get(name)
    if tail is None:
        raise UserError("model.tail_cut", name, _why_absent(cuts.module, name))
    if tail.end <= cut.end:
        raise UserError("model.tail_cut", name, f"must be behind model.cut={cut.name}")
    if tail.end == cuts.operations - 1:
        raise UserError("model.tail_cut", name, "is the end of the model: there is no tail behind it")
    if tail.obstacle not in (None, NOTHING_LEARNS_AFTER):
        raise UserError("model.tail_cut", name, f"{tail.obstacle}")
    return tail


def divide(cuts: Cuts | ProbedCuts, cut: Cut | ProbedCut, tail: Cut | None = None) -> SplitModel:
    """Divide a module into two halves, which share their tensors with it; unchecked.

    Args:
        cuts: cuts of the module.
        cut: one that is possible.
        tail: a second one, behind it, of a module that can be traced; None where there is one.
    """
    if isinstance(cuts, ProbedCuts):
        assert isinstance(cut, ProbedCut)
        client, server, crossing = cuts.divide(cut)
        return SplitModel(client, server, (crossing,))
    assert isinstance(cut, Cut)
    module, nodes, modes = cuts.module, cuts.nodes, cuts.modes
    end = len(nodes) if tail is None else tail.end
    of_tail = None if tail is None else _server_graph(module, nodes[end:], tail)
    return SplitModel(
        client=graph_module(module, _client_graph(nodes[: cut.end], cut), "ClientModel", modes),
        server=graph_module(
            module, _server_graph(module, nodes[cut.end : end], cut, tail), "ServerModel", modes
        ),
        crossing=tuple(cut.shapes),
        tail=None if of_tail is None else graph_module(module, of_tail, "TailModel", modes),
    )


def _why_absent(module: nn.Module, cut: str) -> str:
    """Reason why there is no such place."""
    parts = dict(module.named_modules())
    above = [cut[:end] for end, letter in enumerate(cut) if letter == "." and cut in parts]
    hooked = next((name for name in above if has_hooks(parts[name])), None)
    return f"inside of {hooked}, whose hooks need it whole" if hooked else "not a part of this model"


_MANY = 20


def _list_cuts(cuts: Cuts | ProbedCuts) -> str:
    """List the possible cuts for an error; of many, the stages."""
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
    _end(graph, [copies[node] for node in cut.crossing])
    return graph


def _end(graph: fx.Graph, leaving: list[fx.Node]) -> None:
    """Let a graph give what crosses a cut."""
    if len(leaving) > 1:
        flat = [graph.call_function(torch.flatten, (node, 1)) for node in leaving]
        leaving = [graph.call_function(torch.cat, (flat, 1))]
    graph.output(leaving[0])


def _server_graph(module: nn.Module, nodes: Sequence[fx.Node], cut: Cut, tail: Cut | None = None) -> fx.Graph:
    """Graph of what is behind a cut, up to its end or to that of the trunk before a tail."""
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
    if tail is not None:
        _end(graph, [copies[node] for node in tail.crossing])
    return graph


def _is_inplace(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(
            getattr(each, "inplace", False) for each in module.get_submodule(str(node.target)).modules()
        )
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace", False))


def _freeze_without_gradient(parts: SplitModel, example: Tensor) -> None:
    """Let parameters that no gradient reaches be frozen ones: PyTorch's optimizers pass over both."""
    inputs = example
    for half in parts.modules:
        trained = [parameter for parameter in half.parameters() if parameter.requires_grad]
        with evaluating(half), torch.enable_grad():
            half.train()
            inputs = inputs.detach()
            if inputs.is_floating_point():
                inputs = inputs.requires_grad_().clone()  # a clone may be written to in place
            output = half(inputs)
            reached: Sequence[Tensor | None] = [None] * len(trained)
            if output.requires_grad and trained:
                reached = torch.autograd.grad(output.sum(), trained, allow_unused=True)
        for parameter, gradient in zip(trained, reached, strict=True):
            parameter.requires_grad_(gradient is not None)
        inputs = output


def _assert_equal(module: nn.Module, parts: SplitModel, example: Tensor, *, packed: bool) -> None:
    held = [key for part in parts.modules for key in part.state_dict()]
    if unused := sorted(set(module.state_dict()) - set(held)):
        message = f"{', '.join(unused)} are never used"
        raise UserError("model", type(module).__name__, message)
    assert len(held) == len(set(held)), "a cut divides what the module holds"
    with evaluating(module, *parts.modules):
        whole = module(example)
    with evaluating(*parts.modules):
        halves = example
        for part in parts.modules:
            halves = part(halves)
    # Packed tensors come out in another memory format, in which other kernels may run. Untrained networks
    # of a thousand layers overflow.
    far = (1e-4, 1e-5) if packed else (0.0, 0.0)
    equal = torch.allclose(whole, halves, *far, equal_nan=True)
    if not equal:
        message = "its halves give other outputs than the whole: it has a memory, or draws random numbers"
        raise UserError("model", type(module).__name__, message)
