"""Where a model can be cut whose code cannot be followed, from how its submodules run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.hooks import has_hooks
from fedsplit.computing.modes import modes_of
from fedsplit.computing.tracing import Untraceable
from fedsplit.models.splitting.probing import (
    Calls,
    Size,
    UnclearShape,
    is_text,
    probe,
    probes,
    resize_batch,
    sizes,
    tensors_of,
)
from fedsplit.models.splitting.stubs import ServerParts, client_half


@dataclass(frozen=True)
class ProbedCut:
    """A place behind a submodule.

    Args:
        name: name of the submodule.
        end: number of events of a pass before the cut: starts and ends of submodules.
        obstacle: why a model cannot be cut there; None where nothing speaks against it.
    """

    name: str
    end: int
    obstacle: str | None


class ProbedCuts(Mapping[str, ProbedCut]):
    """Places where a module could be cut between its submodules, by name, in the order in which they end.

    Parts of blocks (members of a `ModuleList`) are not among them: more than one tensor crosses there.
    Whether the halves give what the whole gives is for `split` to see.

    Args:
        module: the module; its training mode is left as it is.
        example: a batch of inputs.
        is_guarded: True if server halves fail where they need values that only clients have.
        untraceable: why the module's code could not be followed; None where that was not tried.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        *,
        guarded: bool = False,
        untraceable: Untraceable | None = None,
    ) -> None:
        modes_of(module)  # refuses a module whose modes change what it holds
        self.module, self.example = module, example
        self.is_guarded, self.untraceable = guarded, untraceable
        inputs = probes(example)
        self._first, self._second = (probe(module, x) for x in inputs)
        self.operations = self._first[""].ends[-1]
        """Number of events that a pass consists of."""
        ends = sorted((calls.ends[-1], name) for name, calls in self._first.items() if self._may_be(name))
        self._cuts = {name: ProbedCut(name, end, self._obstacle(name)) for end, name in ends}

    @override
    def __getitem__(self, name: str) -> ProbedCut:
        return self._cuts[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._cuts)

    @override
    def __len__(self) -> int:
        return len(self._cuts)

    def stages(self) -> list[ProbedCut]:
        """The blocks that the model can be cut behind; of a model without blocks, all such places."""
        return [cut for cut in self.possible if self._is_block(cut.name)] or self.possible

    @property
    def possible(self) -> list[ProbedCut]:
        """Cuts that nothing in the module speaks against."""
        return [cut for cut in self._cuts.values() if cut.obstacle is None]

    def trials(self) -> list[Tensor]:
        """Batches of other sizes and lengths than those that were probed."""
        if is_text(self.example):
            return [
                resize_batch(self.example, 1, 4),
                resize_batch(self.example, 5, min(9, self.example.shape[1])),
            ]
        other = -resize_batch(self.example, 3).flip(0)
        return [resize_batch(self.example, 1), resize_batch(self.example, 5), other]

    def divide(self, cut: ProbedCut) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
        """The halves, which share their tensors with the module, and what crosses of a sample."""
        before, after, _ = self._sides(cut.end)
        output, (shape,) = self._shapes(cut.name)
        parts = ServerParts(shape, self.example, text=is_text(self.example), guarded=self.is_guarded)
        following = {
            name: calls.outputs[0]
            for name, calls in self._first.items()
            if self._is_block(name) and calls.starts[0] >= cut.end
        }
        stubs = {name: self._shapes(name) for name in before if name != cut.name}
        server = parts.half(self.module, (cut.name, output), stubs, following)
        length = self.example.shape[1] if is_text(self.example) else 1
        crossing = tuple(size.of(len(self.example), length) for size in shape[1:])
        return client_half(self.module, cut.name, after, shape), server, crossing

    def _shapes(self, name: str) -> tuple[object, list[tuple[Size, ...]]]:
        """Output of a submodule, and the shapes of the tensors in it."""
        pairs = [
            [sizes(*pair) for pair in zip(*map(tensors_of, outputs), strict=True)]
            for outputs in zip(self._first[name].outputs, self._second[name].outputs, strict=True)
        ]
        if any(each != pairs[0] for each in pairs):
            raise UnclearShape(f"{name} gives other shapes in each call")
        return self._first[name].outputs[0], pairs[0]

    def _may_be(self, name: str) -> bool:
        """True if a submodule is not the whole, and not inside of a block."""
        above = [name[:end] for end, letter in enumerate(name) if letter == "."]
        return name != "" and not any(map(self._is_block, above))

    def _is_block(self, name: str) -> bool:
        owner = name.rpartition(".")[0]
        return name in self._first and isinstance(self.module.get_submodule(owner), nn.ModuleList)

    def _sides(self, end: int) -> tuple[list[str], list[str], list[str]]:
        """Outermost submodules that hold something and run before an event; after it; what does neither."""
        before: list[str] = []
        after: list[str] = []
        divided: list[str] = []
        parts = dict(self.module.named_modules())

        def visit(name: str) -> None:
            part, calls = parts[name], self._first.get(name, Calls())
            if not part.state_dict():
                return
            inner = [f"{name}.{child}".lstrip(".") for child, _ in part.named_children()]
            runs_in_parts = not calls.ends and any(each.startswith(f"{name}.") for each in self._first)
            if runs_in_parts or any(s < end < e for s, e in zip(calls.starts, calls.ends, strict=True)):
                own = {*part._parameters, *part._buffers} & part.state_dict().keys()
                divided.extend(f"{name}.{key}".lstrip(".") for key in sorted(own))
                for each in inner:
                    visit(each)
            elif calls.ends and calls.ends[-1] <= end:
                before.append(name)
            elif not calls.ends or calls.starts[0] >= end:
                after.append(name)
            else:
                divided.append(name)

        visit("")
        return before, after, divided

    def _obstacle(self, name: str) -> str | None:
        """Reason why the module cannot be cut behind a submodule."""
        calls, parts = self._first[name], dict(self.module.named_modules())
        above = [name[:end] for end, letter in enumerate(name) if letter == "."]
        if hooked := next((each for each in (*above, name) if has_hooks(parts[each])), None):
            return f"inside of {hooked}, whose hooks need it whole"
        if len(calls.ends) > 1:
            return "it runs more than once"
        before, after, divided = self._sides(calls.ends[0])
        if divided:
            return f"it divides the uses of {', '.join(divided)}"
        if not any(_learns(parts[each]) for each in before):
            return "nothing before it learns"
        if not any(_learns(parts[each]) for each in after):
            return "nothing after it learns"
        return self._crossing_obstacle(name, before)

    def _crossing_obstacle(self, name: str, before: Sequence[str]) -> str | None:
        """Reason why values behind a submodule cannot cross."""
        output = self._first[name].outputs[0]
        crossing = tensors_of(output)
        if len(crossing) != 1 or not crossing[0].is_floating_point():
            return "what crosses is no tensor, or several"
        try:
            shape = self._shapes(name)[1][0]
            for each in before:
                self._shapes(each)
        except (UnclearShape, ValueError) as error:
            return f"shapes depend on more than the number of samples and their length ({error})"
        if shape[:1] != (Size(1, 1, 0),):
            return "what crosses is no activation of every sample"
        positions = shape[1:2] == (Size(1, 0, 1),)
        return (
            "what crosses has no positions, as texts have"
            if is_text(self.example) and not positions
            else None
        )


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
