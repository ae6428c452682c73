"""Where a model can be cut, and what would cross."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.computing.modes import in_mode, modes_of
from fedsplit.computing.shapes import known_shape, note_shapes, shape_at
from fedsplit.computing.tracing import submodules_of, trace_operations
from fedsplit.errors import UserError
from fedsplit.randomness import seed_modules


@dataclass(frozen=True)
class Cut:
    """A place between two operations.

    Args:
        name: name of the submodule whose last operation comes before the cut.
        end: number of operations before the cut.
        crossing: the tensors that are computed before it and used after it.
        counts: values before it and used after it that are the number of samples, which the server knows.
        obstacle: why a model cannot be cut there; None where it can.
    """

    name: str
    end: int
    crossing: tuple[fx.Node, ...]
    counts: tuple[fx.Node, ...]
    obstacle: str | None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of one sample, of each tensor that crosses."""
        return [tuple(known_shape(node).shape[1:]) for node in self.crossing]


class Cuts(Mapping[str, Cut]):
    """All places where a module could be cut, by name, in the order of its operations.

    Args:
        module: the module; its training mode is left as it is.
        example: a batch of inputs, with a number of samples that no layer has by chance.

    Raises:
        UserError: the module cannot be traced.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.modes = modes_of(module)
        """Training modes that the module's own `train` sets."""
        self.module, self.nodes = module, trace_operations(module)
        _propagate(module, self.nodes, example)
        held = _TensorUses(module, self.nodes)
        counts = {node for node in self.nodes if _counts_samples(node, len(example))}
        crossings = _crossings(self.nodes)
        self._cuts = {}
        for name, end in _ends(self.nodes).items():
            values = crossings[end]
            crossing = tuple(node for node in values if node not in counts)
            found = _obstacle(crossing, len(example)) or held.obstacle(end)
            self._cuts[name] = Cut(name, end, crossing, tuple(counts.intersection(values)), found)

    @override
    def __getitem__(self, name: str) -> Cut:
        return self._cuts[name]

    @override
    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._cuts)

    @override
    def __len__(self) -> int:
        return len(self._cuts)

    def stages(self) -> list[Cut]:
        """The model's own stages: its outermost parts that it can be cut behind.

        Of a part that holds nearly all (as the encoder of a vision transformer does), its parts in its place;
        of all parts, where there would be no more than two stages (as in a VGG).
        """
        names = [name for name, _ in self.module.named_children()]
        while True:
            stages = [self[name] for name in names if name in self and self[name].obstacle is None]
            large = {name for name in names if self._operations_of(name) > _NEARLY_ALL * len(self.nodes)}
            opened = large if len(stages) > 2 else set(names)
            inner = {name: list(dict(self.module.get_submodule(name).named_children())) for name in opened}
            if not any(inner.values()):
                return stages or self.possible
            names = [
                each
                for name in names
                for each in ([f"{name}.{child}" for child in inner.get(name, [])] or [name])
            ]

    @property
    def operations(self) -> int:
        """Number of operations of the module."""
        return len(self.nodes)

    def _operations_of(self, name: str) -> int:
        """Number of operations in a submodule."""
        return sum(name in submodules_of(node) for node in self.nodes)

    @property
    def possible(self) -> list[Cut]:
        """Cuts that are possible in the module."""
        return [cut for cut in self._cuts.values() if cut.obstacle is None]


_NEARLY_ALL = 0.75

NOTHING_LEARNS_AFTER = "nothing after it learns"
"""The obstacle that a tail may have, as no weights of it need to move."""


def _propagate(module: nn.Module, nodes: Sequence[fx.Node], example: Tensor) -> None:
    """Note the shape of every value at its node."""
    with evaluating(module):
        module(example)  # a sample that does not fit gives torch's error, not a tracer's
        note_shapes(fx.GraphModule(module, nodes[0].graph), example)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluate without gradients, with equal draws each time; modes, buffers and draws are then as before."""
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    devices = {torch.device("cpu"), *(tensor.device for tensor in held)}
    cards = [device.index for device in devices if device.type == "cuda"]
    with torch.no_grad(), torch.random.fork_rng(cards), ExitStack() as modes:
        for device in devices:  # and no others, which takes longer than a pass of a small model
            seed_modules(0, device)
        try:
            for module in modules:
                modes.enter_context(in_mode(module, training=False))
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)


def _ends(nodes: Sequence[fx.Node]) -> dict[str, int]:
    """Number of nodes up to and with the last one of each submodule, by its name."""
    ends: dict[str, int] = {}
    for position, node in enumerate(nodes):
        names = {*submodules_of(node)} - {""}
        if node.op == "call_module":
            names.add(str(node.target))
        ends.update(dict.fromkeys(names, position + 1))
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _crossings(nodes: Sequence[fx.Node]) -> list[tuple[fx.Node, ...]]:
    """Values that are computed before a number of operations and used after them, by that number."""
    positions = {node: position for position, node in enumerate(nodes)}
    last_used = [max((positions[user] for user in node.users), default=-1) for node in nodes]
    crossings: list[tuple[fx.Node, ...]] = [()]
    alive: list[int] = []
    for position in range(len(nodes)):
        alive = [each for each in (*alive, position) if last_used[each] > position]
        crossings.append(tuple(nodes[each] for each in alive))
    return crossings


def _counts_samples(node: fx.Node, samples: int) -> bool:
    """True if an operation asks how many samples there are: `x.size(0)`, `x.shape[0]`, `x.size()[0]`."""
    if node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
        asked = node.args[0]
    elif node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
        shape = node.args[0]
        if not isinstance(shape, fx.Node) or not (
            (shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1)
            or (shape.target is getattr and shape.args[1] == "shape")
        ):
            return False
        asked = shape.args[0]
    else:
        return False
    known = shape_at(asked) if isinstance(asked, fx.Node) else None
    return known is not None and known.shape[0] == samples


class _TensorUses:
    """Parameters and buffers of a module, by the operations that use them."""

    def __init__(self, module: nn.Module, nodes: Sequence[fx.Node]) -> None:
        names = set(module.state_dict())
        uses: dict[str, list[int]] = {}
        for position, node in enumerate(nodes):
            if node.op == "call_module":
                used = [f"{node.target}.{key}" for key in module.get_submodule(str(node.target)).state_dict()]
            else:
                used = [str(node.target)] if node.op == "get_attr" and node.target in names else []
            for name in used:
                uses.setdefault(name, []).append(position)
        parameters = [name for name, _ in module.named_parameters(remove_duplicate=False) if name in uses]
        self._learns_first = min((uses[name][0] for name in parameters), default=len(nodes))
        self._learns_last = max((uses[name][-1] for name in parameters), default=-1)
        self._several = {name: used for name, used in sorted(uses.items()) if len(used) > 1}

    def obstacle(self, end: int) -> str | None:
        """Reason why what is held cannot be divided between the operations before `end` and the others."""
        if self._learns_first >= end:
            return "nothing before it learns"
        if self._learns_last < end:
            return NOTHING_LEARNS_AFTER
        both = [name for name, used in self._several.items() if used[0] < end <= used[-1]]
        return f"it divides the uses of {', '.join(both)}" if both else None


def _obstacle(crossing: Sequence[fx.Node], samples: int) -> str | None:
    """Reason why these values cannot cross."""
    found = [shape_at(node) for node in crossing]
    tensors = [each for each in found if each is not None]
    if len(tensors) < len(found) or not tensors:
        return "what crosses is no tensor"
    if any(
        not each.shape or each.shape[0] != samples or not each.dtype.is_floating_point for each in tensors
    ):
        return "what crosses is no activation of every sample"
    if len({each.dtype for each in tensors}) > 1:
        return "tensors of different types cross"
    return None


class Place(Protocol):
    """A place where a module could be cut."""

    @property
    def name(self) -> str:
        """Name of the submodule before the place."""

    @property
    def end(self) -> int:
        """Number of operations, or other events, before the cut."""


class Places(Protocol):
    """Places where a module could be cut, by name."""

    @property
    def operations(self) -> int:
        """Number of operations, or other events, in a pass."""

    def stages(self) -> Sequence[Place]:
        """Cuts that go by number."""

    def __getitem__(self, name: str) -> Place: ...
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: object) -> bool: ...


def resolve_cut(cuts: Places, cut: str | int | None, stages: Sequence[str] | None) -> str:
    """Resolve the cut that a configuration asks for to its name.

    Args:
        cut: name of the cut; or the number of a stage, counted from 1; None is the stage nearest to the
            middle of the model's operations.
        stages: names of the model's stages; None are its own, see `Cuts.stages`.

    Raises:
        UserError: there is no such stage.
    """
    if isinstance(cut, str):
        return cut
    names = list(stages) if stages else [stage.name for stage in cuts.stages()]
    if not names:
        raise UserError("model.cut", cut, "this model cannot be cut anywhere")
    if unknown := [name for name in names if name not in cuts]:
        raise UserError("model.stages", unknown[0], f"no part of this model; its parts: {', '.join(cuts)}")
    if cut is None:
        return min(names, key=lambda name: abs(cuts[name].end - cuts.operations / 2))
    if cut > len(names):
        raise UserError("model.cut", cut, f"must be from 1 to {len(names)}: {', '.join(names)}")
    return names[cut - 1]
