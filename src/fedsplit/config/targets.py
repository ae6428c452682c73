"""What a `_target_` is, known before it is called: a class, or a function that says what it returns."""

import types
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Union, get_args, get_origin, get_type_hints

from fedsplit.errors import UserError, first_line


def located(key: str, target: str) -> Any:
    """What a dotted path names, imported and not called.

    Raises:
        UserError: there is nothing such.
    """
    try:
        if target.startswith("torchvision."):
            from fedsplit.machine.torchvision_operators import torchvision  # noqa: PLC0415  (imports torch)

            torchvision()  # whose import may need help
        return _found(target)
    except Exception as error:  # whatever a module of the user's raises on import
        reason = first_line(error)
        raise UserError(key, target, f"Error loading '{target}': {type(error).__name__}({reason})") from error


def _found(target: str) -> Any:
    first, *names = target.split(".")
    found, path = import_module(first), first
    for name in names:
        path = f"{path}.{name}"
        if isinstance(found, types.ModuleType) and not hasattr(found, name):
            found = import_module(path)  # where it fails, it says which package is not there
        else:
            found = getattr(found, name)
    return found


def is_class(key: str, target: str, kind: type) -> bool:
    """Whether a dotted path names `kind` or a class that is one; see `located`."""
    found = located(key, target)
    return isinstance(found, type) and issubclass(found, kind)


def check_kind(path: str, node: Mapping[str, object], kind: type) -> None:
    """Look at what a node and the nodes in it would call, before anything is called.

    The argument that takes a node in it must say by its annotation what it must be.

    Args:
        node: with a `_target_`.

    Raises:
        UserError: it names nothing, makes something else, or does not say what it makes.
    """
    key, target = f"{path}._target_", node["_target_"]
    if not isinstance(target, str):
        raise UserError(key, target, "the dotted path of a class or function")
    found = located(key, target)
    is_type = isinstance(found, type)
    makes = [found] if is_type else _classes(_hints(found).get("return"))
    if not makes or not all(issubclass(each, kind) for each in makes):
        unsaid = callable(found) and not makes
        told = f", and say so: def ...(...) -> {kind.__name__}" if unsaid else ""
        raise UserError(key, target, f"must make a {kind.__name__}{told}")
    if node.get("_recursive_", True):
        takes = _hints(found.__init__ if is_type else found)
        for name, value in node.items():
            _check_argument(f"{path}.{name}", value, takes.get(name))


def _check_argument(path: str, value: object, annotation: object) -> None:
    if isinstance(value, Mapping) and "_target_" in value:
        makes = _classes(_result(annotation) if value.get("_partial_") else annotation)
        if len(makes) != 1:
            told = "may be called only for an argument that is annotated with one class"
            raise UserError(f"{path}._target_", value["_target_"], told)
        check_kind(path, value, makes[0])
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _check_argument(f"{path}.{name}", each, None)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_argument(path, each, _item(annotation))


def _hints(function: object) -> Mapping[str, object]:
    """Annotations of a function; none where it has none, or names what only a type checker imports."""
    try:
        return get_type_hints(function)
    except Exception:  # annotations are evaluated; without them it is refused for not saying what it makes
        return {}


def _classes(annotation: object) -> list[type]:
    """The classes that an annotation allows beside None; none where it allows anything else too."""
    if get_origin(annotation) in (Union, types.UnionType):
        found = [_classes(each) for each in get_args(annotation) if each is not types.NoneType]
        return [each for classes in found for each in classes] if all(found) else []
    origin = get_origin(annotation) or annotation
    anything = (Any, object, Callable, types.NoneType)
    return [origin] if isinstance(origin, type) and origin not in anything else []


def _result(annotation: object) -> object:
    """What the function that an annotation asks for returns."""
    asked = (annotation, *get_args(annotation))
    return next((get_args(each)[-1] for each in asked if get_origin(each) is Callable), None)


def _item(annotation: object) -> object:
    """What is in the list that an annotation asks for."""
    asked = (annotation, *get_args(annotation))
    return next((get_args(each)[0] for each in asked if get_origin(each) in (list, tuple, Sequence)), None)
