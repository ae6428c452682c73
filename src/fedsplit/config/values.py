"""Types of arguments that a user sets, with their ranges, and the check of a value against one.

A plug-in annotates its constructor with these, and a wrong value is then refused before anything
heavy is imported:

    class Dirichlet:
        def __init__(self, *, alpha: PositiveFloat, min_samples: PositiveInt = 1) -> None: ...
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from fedsplit.config.choices import names_of

Plain: TypeAlias = Mapping[str, Any]
"""Values by key as YAML holds them, nested: a composed configuration, or a part of one."""


@dataclass(frozen=True)
class Range:
    """Condition on a value, in words and as a test."""

    words: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class ChoiceOf:
    """The name of a choice of a group, or one of a few others that stand for such."""

    group: str
    others: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Condition on a value, in words."""
        return f"one of {', '.join((*names_of(self.group), *self.others))}"

    def accepts(self, value: object) -> bool:
        """True if a value is the name of such a choice."""
        return value in names_of(self.group) or value in self.others


PositiveInt: TypeAlias = Annotated[int, Range("a whole number greater than 0", lambda v: v > 0)]
NonNegativeInt: TypeAlias = Annotated[int, Range("a whole number, 0 or greater", lambda v: v >= 0)]
PositiveFloat: TypeAlias = Annotated[float, Range("a number greater than 0", lambda v: v > 0)]
NonNegativeFloat: TypeAlias = Annotated[float, Range("a number, 0 or greater", lambda v: v >= 0)]
Fraction: TypeAlias = Annotated[float, Range("a number from 0 to 1", lambda v: 0 <= v <= 1)]
BelowOne: TypeAlias = Annotated[float, Range("a number from 0 to below 1", lambda v: 0 <= v < 1)]
Share: TypeAlias = Annotated[float, Range("a number above 0, at most 1", lambda v: 0 < v <= 1)]
Percentile: TypeAlias = Annotated[float, Range("a number above 0, at most 100", lambda v: 0 < v <= 100)]
Workers: TypeAlias = Annotated[int, Range("a whole number from 1 to 64", lambda v: 1 <= v <= 64)]
Degrees: TypeAlias = Annotated[float, Range("a number from 0 to 180", lambda v: 0 <= v <= 180)]
Bits: TypeAlias = Annotated[int, Range("a whole number from 1 to 16", lambda v: 1 <= v <= 16)]
OwnPath: TypeAlias = Annotated[str, Range("a path", lambda v: v != "")]
"""A path of the machine that uses it, which no server says to its clients."""
ChannelDim: TypeAlias = Annotated[int, Range("a dimension, 0 to 3", lambda v: 0 <= v <= 3)]


DeployedPrecision: TypeAlias = Annotated[str, ChoiceOf("deployment")]
HalfPrecision: TypeAlias = Annotated[str, ChoiceOf("deployment", ("int8",))]
"""Precision of a client half in split inference, where int8 means static_int8 on the requested backend."""
AttackerName: TypeAlias = Annotated[str, ChoiceOf("attacker")]
CodecName: TypeAlias = Annotated[str, ChoiceOf("codec")]
DefenceName: TypeAlias = Annotated[str, ChoiceOf("defence")]
PresetName: TypeAlias = Annotated[str, ChoiceOf("quant")]
Rate: TypeAlias = Annotated[float, Range("a number from 1e-6 to 1e12", lambda v: 1e-6 <= v <= 1e12)]


def _spread_from(least: float) -> Callable[[object], bool]:
    """Accepts a number from `least` to 1e12, or a distribution of such numbers."""

    def number(value: Any, most: float = 1e12) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    def accepts(value: Any) -> bool:
        match value:
            case ["uniform", low, high]:
                return number(high) and number(low, high)
            case ["lognormal", median, sigma]:
                return number(median) and fits(float, sigma) and 0 <= sigma <= 5
        return number(value)

    return accepts


_DRAWN = "[uniform, low, high] or [lognormal, median, sigma up to 5]"
Spread: TypeAlias = Annotated[Any, Range(f"a number from 1e-6 to 1e12, {_DRAWN}", _spread_from(1e-6))]
SpreadFromZero: TypeAlias = Annotated[Any, Range(f"a number from 0 to 1e12, {_DRAWN}", _spread_from(0))]

VOCABULARY: Mapping[str, object] = {
    **{name: value for name, value in globals().items() if get_origin(value) is Annotated},
    **{"int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple, "dict": dict},
    **{"Literal": Literal, "Any": Any},
}
"""The names an annotation may use to be checked without importing the module it stands in."""

LARGEST = 3.4e38
"""Largest number that float32 holds. Comparing with it refuses infinities and NaN too."""
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def describe_allowed(annotation: Any) -> str:
    """Values that `annotation` allows, in words."""
    if get_origin(annotation) is Annotated:
        return next(note.words for note in get_args(annotation) if isinstance(note, Range | ChoiceOf))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe_allowed(choice) for choice in get_args(annotation))
    if get_origin(annotation) is Literal:
        choices = ", ".join(map(str, get_args(annotation)))
        return f"one of {choices}" if len(get_args(annotation)) > 1 else choices
    if get_origin(annotation) in (list, tuple):
        inner = get_args(annotation)[0]
        return f"a list, each {describe_allowed(inner)}"
    if get_origin(annotation) is dict:
        return "a choice of its group"
    return _WORDS.get(annotation, "anything")


def fits(annotation: object, value: object) -> bool:  # noqa: PLR0911  (one return a kind of annotation)
    """True if a configured value (plain number, text, list or None) fits `annotation`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        base, *notes = arguments
        return fits(base, value) and all(
            note.accepts(value) for note in notes if isinstance(note, Range | ChoiceOf)
        )
    if origin in (Union, types.UnionType):
        return any(fits(choice, value) for choice in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(map(fits, arguments, value))
        return all(fits(arguments[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(annotation, type) or annotation not in _WORDS or isinstance(value, annotation)
