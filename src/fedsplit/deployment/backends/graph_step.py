"""One step of a deployed graph: an operation with its arguments, as it is carried out and as JSON.

JSON has no word for the result of an earlier step, a type or a device: each is an object of one key.
"""

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import torch
from torch import fx

from fedsplit.deployment.backends.graph_operations import ATEN, DECOMPOSED

_PYTHON = {"getitem": operator.getitem, "add": operator.add, "sub": operator.sub, "mul": operator.mul}
_KINDS = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
_TEXT = re.compile(r"[A-Za-z_ ,.>-]{0,200}")
"""Texts that an operation may take: equations of `einsum`, names of modes."""
_MOST_DEPTH = 4
LARGEST_NUMBER = 2**53


Argument: TypeAlias = Any
"""Argument or result of an operation: a tensor, a plain value, or a list of such."""


@dataclass(frozen=True)
class _Value:
    """The result of an earlier step, by its number."""

    step: int


@dataclass(frozen=True)
class GraphStep:
    """One operation: what it calls with which arguments, and the results that nothing needs behind it."""

    function: Callable[..., Argument]
    arguments: tuple[Argument, ...]
    keyword_arguments: dict[str, Argument]
    last_uses: tuple[int, ...] = ()

    @property
    def uses(self) -> list[int]:
        """Earlier steps whose results it needs."""
        values = flat([*self.arguments, *self.keyword_arguments.values()])
        return [each.step for each in values if isinstance(each, _Value)]

    def result(self, results: dict[int, Argument]) -> Argument:
        """Result of the step for the results of earlier steps."""
        arguments = [_resolve(each, results) for each in self.arguments]
        return self.function(
            *arguments, **{key: _resolve(each, results) for key, each in self.keyword_arguments.items()}
        )

    @classmethod
    def parse(cls, name: object, arguments: list[Argument], named: dict[str, Argument], number: int) -> Self:
        """Step `number` from JSON; `ValueError` where it is no operation on earlier steps."""
        function = _function(name)
        values = tuple(_value(each, number) for each in arguments)
        options = {key: _value(each, number) for key, each in named.items()}
        _check_arguments(str(name), function, values, options)
        return cls(function, values, options)


def name_of(target: object) -> str:
    """The name of an operation; `ValueError` where it is none that a graph can hold."""
    if isinstance(target, torch._ops.OpOverload):
        name = str(target)
        _function(name)
        return name
    for name, function in _PYTHON.items():
        if target is function:
            return name
    raise ValueError(f"{target} is no operation on tensors")


def _function(name: object) -> Callable[..., Argument]:
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
    name: str, function: Callable[..., Argument], arguments: tuple[Argument, ...], named: dict[str, Argument]
) -> None:
    """Hold texts and names to what the operation declares."""
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
        if "str" not in str(argument.type) and any(isinstance(each, str) for each in flat(value)):
            raise ValueError(f"{name}: {argument.name} is no text")


def to_json(value: Argument, numbers: dict[fx.Node, int]) -> Argument:
    """An argument as JSON: what JSON has no word for is an object of one key."""
    if isinstance(value, fx.Node):
        return {"step": numbers[value]}
    if isinstance(value, list | tuple):
        return [to_json(each, numbers) for each in value]
    for kind, found in _KINDS.items():
        if isinstance(value, found):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} cannot be written")


def _value(value: Argument, number: int, depth: int = 0) -> Argument:
    """An argument of step `number` from JSON."""
    if depth > _MOST_DEPTH:
        raise ValueError("an argument is nested too deeply")
    if isinstance(value, list):
        return [_value(each, number, depth + 1) for each in value]
    if isinstance(value, dict):
        return _from_object(value, number)
    if isinstance(value, str) and not _TEXT.fullmatch(value):
        raise ValueError("a text holds other than letters and the signs of an equation")
    if is_whole(value) and abs(value) > LARGEST_NUMBER and value not in (2**63 - 1, -(2**63)):
        raise ValueError("a number is beyond all bounds")
    return value


def _from_object(value: dict[str, Argument], number: int) -> Argument:
    """Value that an object of one key stands for."""
    if len(value) != 1:
        raise ValueError("an object has one key")
    kind, content = next(iter(value.items()))
    if kind == "device" and content == "cpu":
        return torch.device("cpu")
    if kind != "step":
        return constant(kind, content)
    if not is_whole(content) or not 0 <= content < number:
        raise ValueError(f"step {number} comes before what it needs")
    return _Value(content)


def constant(kind: object, name: object) -> Argument:
    """A type or a memory format of torch by its name."""
    found = getattr(torch, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(found, _KINDS[kind]):
        raise ValueError(f"{str(name)[:100]} is no {str(kind)[:100]}")
    return found


def _resolve(value: Argument, results: dict[int, Argument]) -> Argument:
    if isinstance(value, _Value):
        return results[value.step]
    if isinstance(value, list):
        return [_resolve(each, results) for each in value]
    return value


def flat(value: Argument) -> Iterator[Argument]:
    """Items of lists in lists, one after the other."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from flat(each)
    else:
        yield value


def is_whole(value: object) -> bool:
    """True if a value is a whole number: True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)
