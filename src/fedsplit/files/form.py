"""The form of what is read back: types of plain values, keys of states, shapes of tensors."""

import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


class Misfit(ValueError):
    """A value of another form than it must be.

    Args:
        place: place of the value, keys with dots between.
        in_tensors: True if it is about a tensor, and not about a plain value.
    """

    def __init__(self, place: str, message: str, *, in_tensors: bool = False) -> None:
        super().__init__(f"{place} {message}")
        self.in_tensors = in_tensors


def check_form(value: object, annotation: Any, place: str) -> None:
    """Check a value read from JSON against a type, down to the last leaf.

    Args:
        value: plain, with dictionaries where `annotation` has dataclasses.
        annotation: a plain type, `Literal`, a dataclass, or a union, list or dict of such; a dict whose keys
            are a `Literal` must have all of them.

    Raises:
        Misfit: it is of another type, or has other keys.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if is_dataclass(annotation):
        hints = get_type_hints(annotation)
        entries = check_keys(value, [field.name for field in fields(annotation)], place)
        for key, each in entries.items():
            check_form(each, hints[key], f"{place}.{key}")
    elif origin in (Union, types.UnionType):
        if value is not None or type(None) not in arguments:
            (other,) = (each for each in arguments if each is not type(None))
            check_form(value, other, place)
    elif origin is list:
        if not isinstance(value, list):
            raise Misfit(place, "must be a list")
        for number, each in enumerate(value):
            check_form(each, arguments[0], f"{place}.{number}")
    elif origin is dict:
        known = get_args(arguments[0]) if get_origin(arguments[0]) is Literal else None
        for key, each in check_keys(value, known, place).items():
            check_form(each, arguments[1], f"{place}.{key}")
    elif not _is_plain(value, annotation):
        raise Misfit(place, f"must be {_WORDS.get(annotation, annotation.__name__)}")


def _is_plain(value: object, annotation: Any) -> bool:
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def check_keys(value: object, known: Collection[str] | None, place: str) -> Mapping[str, Any]:
    """The value, a dictionary of exactly these keys, or of any (None); `Misfit` where it is not."""
    if not isinstance(value, dict):
        raise Misfit(place, "must hold keys and values")
    for key in known or ():
        if key not in value:
            raise Misfit(place, f"must have {key}")
    for key in value if known is not None else ():
        if key not in known:  # type: ignore[operator]
            raise Misfit(place, f"must not have {key}")
    return value


def check_like(found: object, like: object, place: str) -> None:
    """Check a state against one of the same form: keys, shapes and types of tensors, as far as `like` goes.

    Where `like` has an empty dictionary or None, what is there depends on what was done, and all is allowed.

    Raises:
        Misfit: it has another form.
    """
    if isinstance(like, dict):
        holds_tensors = any(isinstance(each, Tensor) for each in like.values())
        try:
            entries = check_keys(found, list(like) or None, place)
        except Misfit as misfit:
            misfit.in_tensors = holds_tensors
            raise
        for key, each in like.items():
            check_like(entries[key], each, f"{place}.{key}")
    elif isinstance(like, Tensor):
        if not isinstance(found, Tensor) or found.shape != like.shape or found.dtype != like.dtype:
            message = f"must be a tensor of shape {tuple(like.shape)} and type {str(like.dtype)[6:]}"
            raise Misfit(place, message, in_tensors=True)
    elif isinstance(like, list):
        if not isinstance(found, list):
            raise Misfit(place, "must be a list")
    elif like is not None:
        check_form(found, type(like), place)
