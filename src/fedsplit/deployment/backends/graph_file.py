"""Graphs of torch's operations as safetensors: the tensors, and the list of operations as JSON beside them.

An archive of `torch.export` would do the same, but loading one unpickles its example inputs and
evaluates expressions as code. Here a file can name operations on tensors and nothing else, and what it
names is carried out step by step: no source is generated from a file.
"""

import json
import logging
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from typing_extensions import override

from fedsplit.deployment.backends.graph_step import (
    LARGEST_NUMBER,
    Argument,
    GraphStep,
    constant,
    flat,
    is_whole,
    name_of,
    to_json,
)
from fedsplit.errors import first_line

_ASSERTIONS = (torch.ops.aten._assert_tensor_metadata.default,)
_MOST_STEPS = 20_000
_LARGEST_JSON = 16 * 2**20
_PER_SAMPLE, _BESIDE = 64 * 2**20, 256 * 2**20
"""Bytes that values alive at once may take: for each sample of the input, and beside them."""


class OperationGraph(nn.Module):
    """A list of operations on tensors, with one input and one output, carried out one after the other.

    One of the steps is the input. Tensors that operations need are buffers of this module.

    Args:
        tensors: tensors by their numbers.
        steps: the input, tensors and operations, each before what needs it.
        output: number of the step whose result is the output.

    Raises:
        ValueError: a step is no operation on earlier steps.
    """

    def __init__(self, tensors: Sequence[Tensor], steps: Sequence[list[Argument]], output: int) -> None:
        super().__init__()
        self._written = [list(step) for step in steps]
        self._output = output
        self._steps: list[GraphStep | str | None] = []
        for number, tensor in enumerate(tensors):
            self.register_buffer(f"t{number}", tensor)
        for number, step in enumerate(steps):
            self._steps.append(self._parse(number, step))
        if self._steps.count(None) != 1:
            raise ValueError("it has not one input")
        if not 0 <= output < len(steps):
            raise ValueError(f"there is no step {output}")
        self._free_early()

    def _parse(self, number: int, step: list[Argument]) -> GraphStep | str | None:
        kind, *rest = step
        if kind == "input":
            return None
        if kind == "tensor":
            (place,) = rest
            if not is_whole(place) or not hasattr(self, f"t{place}"):
                raise ValueError(f"there is no tensor {place}")
            return f"t{place}"
        arguments, named = rest
        if not isinstance(arguments, list) or not isinstance(named, dict):
            raise ValueError(f"{kind}: arguments are a list and an object")
        return GraphStep.parse(kind, arguments, named, number)

    def _free_early(self) -> None:
        """Note where the result of each step is needed last."""
        last: dict[int, int] = {}
        for number, step in enumerate(self._steps):
            if isinstance(step, GraphStep):
                last |= dict.fromkeys(step.uses, number)
        for used, number in last.items():
            step = self._steps[number]
            assert isinstance(step, GraphStep)
            if used != self._output:
                self._steps[number] = replace(step, last_uses=(*step.last_uses, used))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """The output for inputs `x (n, ...)`."""
        results: dict[int, Argument] = {}
        for number, step in enumerate(self._steps):
            if step is None:
                results[number] = x
            elif isinstance(step, str):
                results[number] = getattr(self, step)
            else:
                results[number] = step.result(results)
                for used in step.last_uses:
                    del results[used]
        output: Tensor = results[self._output]
        return output

    def check(self, x: Tensor) -> None:
        """Go through all steps without computing them, for inputs shaped as `x`.

        Raises:
            ValueError: arguments do not fit an operation, or its results are beyond all bounds.
        """
        allowed = len(x) * _PER_SAMPLE + _BESIDE + 16 * sum(each.nbytes for each in self.buffers())
        results: dict[int, Argument] = {}
        alive: dict[int, int] = {}
        with torch.no_grad(), _quiet(), FakeTensorMode() as fake:
            for number, step in enumerate(self._steps):
                if step is None:
                    results[number] = fake.from_tensor(x)
                elif isinstance(step, str):
                    results[number] = fake.from_tensor(getattr(self, step))
                else:
                    try:
                        results[number] = step.result(results)
                    except Exception as error:  # operations raise errors of many kinds on wrong arguments
                        reason = first_line(error)
                        name = self._written[number][0]
                        raise ValueError(f"step {number}, {name}: wrong arguments ({reason})") from error
                alive[number] = sum(map(_size, flat(results[number])))
                if sum(alive.values()) > allowed:
                    raise ValueError(f"step {number} needs more than {allowed / 1e6:,.0f} MB")
                for used in step.last_uses if isinstance(step, GraphStep) else ():
                    del results[used], alive[used]
        if not isinstance(results[self._output], Tensor):
            raise ValueError("its output is no tensor")

    @classmethod
    def of(cls, module: fx.GraphModule) -> Self:
        """A graph of one input and one output as `torch.export` makes it; `ValueError` where it is other."""
        numbers: dict[fx.Node, int] = {}
        tensors: list[Tensor] = []
        steps: list[list[Argument]] = []
        output: int | None = None
        for node in module.graph.nodes:
            if not node.users and (node.op == "call_module" or node.target in _ASSERTIONS):
                continue  # guards on inputs, which are checked when they come
            if node.op == "output":
                (last,) = node.all_input_nodes
                output = numbers[last]
                continue
            if node.op == "get_attr":
                steps.append(["tensor", len(tensors)])
                tensors.append(operator.attrgetter(str(node.target))(module).detach())
            elif node.op == "call_function":
                named = {name: to_json(value, numbers) for name, value in node.kwargs.items()}
                steps.append([name_of(node.target), to_json(list(node.args), numbers), named])
            elif node.op == "placeholder":
                steps.append(["input"])
            else:
                raise ValueError(f"{node.op} of {node.target} is no operation on tensors")
            numbers[node] = len(steps) - 1
        if output is None:
            raise ValueError("it has no output")
        return cls(tensors, steps, output)

    def write(self, path: Path) -> None:
        """Write tensors and operations to a file."""
        tensors = dict(self.named_buffers())
        graph = {
            "steps": self._written,
            "output": self._output,
            "types": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        }
        stored = {name: _narrow(tensor).contiguous() for name, tensor in tensors.items()}
        save_file(stored, path, {"graph": json.dumps(graph, separators=(",", ":"))})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The graph that was written.

        Raises:
            ValueError: the file does not hold one.
            SafetensorError: it is no whole safetensors file.
        """
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("graph", "null")
            if len(text) > _LARGEST_JSON:
                raise ValueError("its list of operations is too long")
            try:
                graph = json.loads(text)
            except RecursionError:
                graph = None
            if not isinstance(graph, dict) or graph.keys() != {"steps", "output", "types"}:
                raise ValueError("it holds no graph")
            steps, output, types = graph["steps"], graph["output"], graph["types"]
            if not (isinstance(steps, list) and isinstance(types, list) and is_whole(output)):
                raise ValueError("it holds no graph")
            if len(steps) > _MOST_STEPS or set(file.keys()) != {f"t{number}" for number in range(len(types))}:
                raise ValueError("its steps or tensors are not those of a graph")
            if not all(isinstance(step, list) and len(step) in (1, 2, 3) for step in steps):
                raise ValueError("a step is a list of a name and its arguments")
            tensors = [
                file.get_tensor(f"t{number}").to(constant("dtype", dtype))
                for number, dtype in enumerate(types)
            ]
        try:
            return cls(tensors, steps, output)
        except (TypeError, IndexError) as error:
            raise ValueError(f"a step is none ({error})") from error


def _narrow(tensor: Tensor) -> Tensor:
    """Whole numbers of 64 bits in 8, where they fit: zero points of channels."""
    small = tensor.dtype == torch.int64 and tensor.numel() > 0 and int(tensor.abs().max()) < 128
    return tensor.to(torch.int8) if small else tensor


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what it makes of wrong arguments, which is told in one line."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _size(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ValueError("a number is beyond all bounds")
    return 64
