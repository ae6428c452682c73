"""Graphs of torch's operations as safetensors: the tensors, and the list of operations as JSON beside them.

An archive of `torch.export` would do the same, but loading one unpickles its example inputs and
evaluates expressions as code. Here a file can name operations on tensors and nothing else, and what it
names is carried out step by step: no source is generated from a file.
"""

import json
import logging
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fedsplit.deployment.backends.graph_operations import ATEN, DECOMPOSED
from fedsplit.errors import first_line

_PYTHON = {"getitem": operator.getitem, "add": operator.add, "sub": operator.sub, "mul": operator.mul}
_KINDS = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
_ASSERTIONS = (torch.ops.aten._assert_tensor_metadata.default,)
_TEXT = re.compile(r"[A-Za-z_ ,.>-]{0,200}")
"""Equations of sums, names of modes."""
_MOST_STEPS = 20_000
_MOST_DEPTH = 4
_LARGEST_NUMBER = 2**53
_LARGEST_JSON = 16 * 2**20
_PER_SAMPLE, _BESIDE = 64 * 2**20, 256 * 2**20
"""Bytes that values alive at once may take: for each sample of the input, and beside them."""


@dataclass(frozen=True)
class _Value:
    """The result of an earlier step, by its number."""

    step: int


@dataclass(frozen=True)
class _Step:
    """One operation: what it calls with which arguments, and the results that nothing needs behind it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    last_uses: tuple[int, ...] = ()


class OperationGraph(nn.Module):
    """A list of operations on tensors, with one input and one output, carried out one after the other.

    One of the steps is the input. Tensors that operations need are buffers of this module.

    Args:
        tensors: by number.
        steps: the input, tensors and operations, each before what needs it.
        output: number of the step whose result is the output.

    Raises:
        ValueError: a step is no operation on earlier steps.
    """

    def __init__(self, tensors: Sequence[Tensor], steps: Sequence[list[Any]], output: int) -> None:
        super().__init__()
        self._written = [list(step) for step in steps]
        self._output = output
        self._steps: list[_Step | str | None] = []
        for number, tensor in enumerate(tensors):
            self.register_buffer(f"t{number}", tensor)
        for number, step in enumerate(steps):
            self._steps.append(self._parsed(number, step))
        if self._steps.count(None) != 1:
            raise ValueError("it has not one input")
        if not 0 <= output < len(steps):
            raise ValueError(f"there is no step {output}")
        self._free_early()

    def _parsed(self, number: int, step: list[Any]) -> _Step | str | None:
        kind, *rest = step
        if kind == "input":
            return None
        if kind == "tensor":
            (place,) = rest
            if not _is_whole(place) or not hasattr(self, f"t{place}"):
                raise ValueError(f"there is no tensor {place}")
            return f"t{place}"
        arguments, named = rest
        if not isinstance(arguments, list) or not isinstance(named, dict):
            raise ValueError(f"{kind}: arguments are a list and an object")
        function = _function(kind)
        values = tuple(_value(each, number) for each in arguments)
        options = {name: _value(each, number) for name, each in named.items()}
        _check_arguments(kind, function, values, options)
        return _Step(function, values, options)

    def _free_early(self) -> None:
        """Note where the result of each step is needed last."""
        last: dict[int, int] = {}
        for number, step in enumerate(self._steps):
            if isinstance(step, _Step):
                last |= dict.fromkeys(_uses([*step.arguments, *step.named.values()]), number)
        for used, number in last.items():
            step = self._steps[number]
            assert isinstance(step, _Step)
            if used != self._output:
                self._steps[number] = _Step(
                    step.function, step.arguments, step.named, (*step.last_uses, used)
                )

    def forward(self, x: Tensor) -> Tensor:
        """The output for inputs `x (n, ...)`."""
        results: dict[int, Any] = {}
        for number, step in enumerate(self._steps):
            if step is None:
                results[number] = x
            elif isinstance(step, str):
                results[number] = getattr(self, step)
            else:
                arguments = [_resolved(each, results) for each in step.arguments]
                named = {name: _resolved(each, results) for name, each in step.named.items()}
                results[number] = step.function(*arguments, **named)
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
        results: dict[int, Any] = {}
        alive: dict[int, int] = {}
        with torch.no_grad(), _quiet(), FakeTensorMode() as fake:
            for number, step in enumerate(self._steps):
                if step is None:
                    results[number] = fake.from_tensor(x)
                elif isinstance(step, str):
                    results[number] = fake.from_tensor(getattr(self, step))
                else:
                    arguments = [_resolved(each, results) for each in step.arguments]
                    named = {name: _resolved(each, results) for name, each in step.named.items()}
                    try:
                        results[number] = step.function(*arguments, **named)
                    except Exception as error:  # of many kinds, whatever an operation makes of its arguments
                        reason = first_line(error)
                        name = self._written[number][0]
                        raise ValueError(f"step {number}, {name}: wrong arguments ({reason})") from error
                alive[number] = sum(map(_size, _flat(results[number])))
                if sum(alive.values()) > allowed:
                    raise ValueError(f"step {number} needs more than {allowed / 1e6:,.0f} MB")
                for used in step.last_uses if isinstance(step, _Step) else ():
                    del results[used], alive[used]
        if not isinstance(results[self._output], Tensor):
            raise ValueError("its output is no tensor")

    @classmethod
    def of(cls, module: fx.GraphModule) -> Self:
        """A graph of ATen operations with one input and one output.

        Args:
            module: as `torch.export` makes it.

        Raises:
            ValueError: it holds something else.
        """
        numbers: dict[fx.Node, int] = {}
        tensors: list[Tensor] = []
        steps: list[list[Any]] = []
        output: int | None = None
        for node in module.graph.nodes:
            if not node.users and (node.op == "call_module" or node.target in _ASSERTIONS):
                continue  # guards on inputs, which are checked when they come
            if node.op == "output":
                output = numbers[_only(node.args[0])]
                continue
            if node.op == "get_attr":
                steps.append(["tensor", len(tensors)])
                tensors.append(operator.attrgetter(str(node.target))(module).detach())
            elif node.op == "call_function":
                named = {name: _plain(value, numbers) for name, value in node.kwargs.items()}
                steps.append([_name(node.target), _plain(list(node.args), numbers), named])
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
        stored = {name: _narrowed(tensor).contiguous() for name, tensor in tensors.items()}
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
            if not (isinstance(steps, list) and isinstance(types, list) and _is_whole(output)):
                raise ValueError("it holds no graph")
            if len(steps) > _MOST_STEPS or set(file.keys()) != {f"t{number}" for number in range(len(types))}:
                raise ValueError("its steps or tensors are not those of a graph")
            if not all(isinstance(step, list) and len(step) in (1, 2, 3) for step in steps):
                raise ValueError("a step is a list of a name and its arguments")
            tensors = [
                file.get_tensor(f"t{number}").to(_constant("dtype", dtype))
                for number, dtype in enumerate(types)
            ]
        try:
            return cls(tensors, steps, output)
        except (TypeError, IndexError) as error:
            raise ValueError(f"a step is none ({error})") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _narrowed(tensor: Tensor) -> Tensor:
    """Whole numbers of 64 bits in 8, where they fit: zero points of channels."""
    small = tensor.dtype == torch.int64 and tensor.numel() > 0 and int(tensor.abs().max()) < 128
    return tensor.to(torch.int8) if small else tensor


def _only(value: Any) -> Any:
    if isinstance(value, list | tuple):
        (value,) = value
    return value


def _name(target: object) -> str:
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
        _function(name)
        return name
    for name, function in _PYTHON.items():
        if target is function:
            return name
    raise ValueError(f"{target} is no operation on tensors")


def _function(name: object) -> Callable[..., Any]:
    """The operation of a name.

    Raises:
        ValueError: it is none that a graph can hold.
    """
    if not isinstance(name, str):
        raise ValueError("an operation has a name")
    if name in _PYTHON:
        return _PYTHON[name]
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    known = {"aten": ATEN, "quantized_decomposed": DECOMPOSED}.get(namespace, frozenset())
    if operation.removesuffix("_") not in known:
        raise ValueError(f"{name[:100]} is no operation on tensors that a deployed graph can hold")
    packet = getattr(getattr(torch.ops, namespace), operation, None)
    found = getattr(packet, overload, None) if overload.replace("_", "").isalnum() else None
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"this torch has no operation {name[:100]}")
    if any(argument.is_out for argument in found._schema.arguments):
        raise ValueError(f"{name[:100]} writes to tensors that it is given")
    return found


def _check_arguments(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Hold texts and names to what the operation declares.

    Raises:
        ValueError: there is an argument too many, of an unknown name, or text where there is to be none.
    """
    if not isinstance(function, torch._ops.OpOverload):
        if named or len(arguments) != 2 or not all(isinstance(each, _Value | int) for each in arguments):
            raise ValueError(f"{name} takes two values")
        return
    schema = function._schema.arguments
    places = [argument for argument in schema if not argument.kwarg_only]
    declared = {argument.name: argument for argument in schema}
    if len(arguments) > len(places) or not named.keys() <= declared.keys():
        raise ValueError(f"{name} has no such arguments")
    given = [*zip(places, arguments, strict=False), *((declared[key], each) for key, each in named.items())]
    for argument, value in given:
        if "str" not in str(argument.type) and any(isinstance(each, str) for each in _flat(value)):
            raise ValueError(f"{name}: {argument.name} is no text")


def _plain(value: Any, numbers: dict[fx.Node, int]) -> Any:
    """An argument as JSON: what JSON has no word for is an object of one key."""
    if isinstance(value, fx.Node):
        return {"step": numbers[value]}
    if isinstance(value, list | tuple):
        return [_plain(each, numbers) for each in value]
    for kind, found in _KINDS.items():
        if isinstance(value, found):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} cannot be written")


def _value(value: Any, number: int, depth: int = 0) -> Any:
    """An argument of step `number` from JSON.

    Raises:
        ValueError: it is none.
    """
    if depth > _MOST_DEPTH:
        raise ValueError("an argument is nested too deeply")
    if isinstance(value, list):
        return [_value(each, number, depth + 1) for each in value]
    if isinstance(value, dict):
        return _worded(value, number)
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise ValueError("a text holds other than letters and the signs of an equation")
    if _is_whole(value) and abs(value) > _LARGEST_NUMBER and value not in (2**63 - 1, -(2**63)):
        raise ValueError("a number is beyond all bounds")
    return value


def _worded(value: dict[str, Any], number: int) -> Any:
    """What an object of one key stands for."""
    if len(value) != 1:
        raise ValueError("an object has one key")
    kind, content = next(iter(value.items()))
    if kind == "device" and content == "cpu":
        return torch.device("cpu")
    if kind != "step":
        return _constant(kind, content)
    if not _is_whole(content) or not 0 <= content < number:
        raise ValueError(f"step {number} comes before what it needs")
    return _Value(content)


def _constant(kind: object, name: object) -> Any:
    found = getattr(torch, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(found, _KINDS[kind]):
        raise ValueError(f"{str(name)[:100]} is no {str(kind)[:100]}")
    return found


def _resolved(value: Any, results: dict[int, Any]) -> Any:
    if isinstance(value, _Value):
        return results[value.step]
    if isinstance(value, list):
        return [_resolved(each, results) for each in value]
    return value


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _uses(value: Any) -> Iterator[int]:
    for each in _flat(value):
        if isinstance(each, _Value):
            yield each.step


@contextmanager
def _quiet() -> Iterator[None]:
    """While torch does not log what it makes of wrong arguments, which is told in one line."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _size(value: object) -> int:
    """Bytes of a result.

    Raises:
        ValueError: a number is beyond all bounds.
    """
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise ValueError("a number is beyond all bounds")
    return 64
