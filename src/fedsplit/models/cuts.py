"""Where a model can be cut, and what would cross."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from fedsplit.errors import UserError
from fedsplit.models.tracing import traced


@dataclass(frozen=True)
class Cut:
    """A place between two operations.

    Args:
        name: of the submodule whose last operation comes before it.
        end: how many operations come before it.
        crossing: the values that are computed before it and used after it.
        obstacle: why a model cannot be cut there; None where it can.
    """

    name: str
    end: int
    crossing: tuple[fx.Node, ...]
    obstacle: str | None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one sample, of each tensor that crosses."""
        return [tuple(node.meta["tensor_meta"].shape[1:]) for node in self.crossing]


class Cuts(Mapping[str, Cut]):
    """All places where a module could be cut, by name, in the order of its operations.

    Args:
        module: the module; its training mode is left as it is.
        example: a batch of inputs, with a number of samples that no layer has by chance.

    Raises:
        UserError: the module cannot be traced.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.module, self.nodes = module, traced(module)
        _propagate(module, self.nodes, example)
        owners = _parameters_of(module, self.nodes)
        self._cuts = {
            name: Cut(name, end, crossing, _obstacle(crossing, owners, end, len(example)))
            for name, end in _ends(self.nodes).items()
            for crossing in [_crossing(self.nodes, end)]
        }

    def __getitem__(self, name: str) -> Cut:
        return self._cuts[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._cuts)

    def __len__(self) -> int:
        return len(self._cuts)

    def stages(self) -> list[Cut]:
        """The model's own stages: its outermost parts that it can be cut behind.

        Of a part that holds nearly all (as `features` of a VGG does), its parts in its place.
        """
        names = [name for name, _ in self.module.named_children()]
        while True:
            stages = [self[name] for name in names if name in self and self[name].obstacle is None]
            if len(stages) > 2:
                return stages
            inner = [f"{name}.{child}" for name in names for child, _ in _children(self.module, name)]
            if not inner:
                return stages or self.possible
            names = inner

    @property
    def possible(self) -> list[Cut]:
        """Those where the module can be cut."""
        return [cut for cut in self._cuts.values() if cut.obstacle is None]


def _children(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    return list(module.get_submodule(name).named_children())


def _propagate(module: nn.Module, nodes: Sequence[fx.Node], example: Tensor) -> None:
    """Note the shape of every value at its node."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(example)  # what does not fit is told in torch's words, and not in a tracer's
            ShapeProp(fx.GraphModule(module, nodes[0].graph)).propagate(example)
    finally:
        module.train(training)


def _ends(nodes: Sequence[fx.Node]) -> dict[str, int]:
    """By name of submodule: how many nodes come up to and with its last one."""
    ends: dict[str, int] = {}
    for position, node in enumerate(nodes):
        names = {path for path, _ in node.meta.get("nn_module_stack", {}).values()} - {""}
        if node.op == "call_module":
            names.add(str(node.target))
        ends.update(dict.fromkeys(names, position + 1))
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def _crossing(nodes: Sequence[fx.Node], end: int) -> tuple[fx.Node, ...]:
    after = set(nodes[end:])
    return tuple(node for node in nodes[:end] if after.intersection(node.users))


def _parameters_of(module: nn.Module, nodes: Sequence[fx.Node]) -> list[frozenset[str]]:
    """Names of the parameters that each operation uses."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    used = []
    for node in nodes:
        prefix = f"{node.target}." if node.op == "call_module" else ""
        within = {name for name in names if prefix and name.startswith(prefix)}
        own = {str(node.target)} & set(names) if node.op == "get_attr" else set()
        used.append(frozenset(within | own))
    return used


def _obstacle(
    crossing: Sequence[fx.Node], owners: Sequence[frozenset[str]], end: int, samples: int
) -> str | None:
    if not any(owners[:end]):
        return "nothing before it learns"
    if not any(owners[end:]):
        return "nothing after it learns"
    found = [node.meta.get("tensor_meta") for node in crossing]
    tensors = [each for each in found if isinstance(each, TensorMetadata)]
    if len(tensors) < len(found):
        return "what crosses is no tensor"
    if any(
        not each.shape or each.shape[0] != samples or not each.dtype.is_floating_point for each in tensors
    ):
        return "what crosses is no activation of every sample"
    if len({each.dtype for each in tensors}) > 1:
        return "tensors of different types cross"
    return None


def chosen(cuts: Cuts, cut: str | int | None, stages: Sequence[str] | None) -> str:
    """The name of the cut that a configuration asks for.

    Args:
        cuts: of the model.
        cut: its name; or the number of a stage, counted from 1; None is the stage nearest to the middle of
            the model's operations.
        stages: names of the model's stages; None are its own, see `Cuts.stages`.

    Raises:
        UserError: there is no such stage.
    """
    if isinstance(cut, str):
        return cut
    names = list(stages) if stages else [stage.name for stage in cuts.stages()]
    if cut is None:
        return min(names, key=lambda name: abs(cuts[name].end - len(cuts.nodes) / 2))
    if cut > len(names):
        raise UserError("model.cut", cut, f"from 1 to {len(names)}: {', '.join(names)}")
    return names[cut - 1]
