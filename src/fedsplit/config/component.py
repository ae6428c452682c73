"""A choice of a group: what its `_target_` is, known before it is called, and how it builds that."""

import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from fedsplit.config.values import describe_allowed, fits
from fedsplit.errors import UserError, first_line


def import_target(key: str, target: str) -> Any:
    """Import the object that a dotted path names; `UserError` where there is none."""
    try:
        if target.startswith("torchvision."):
            from fedsplit.machine.torchvision_operators import torchvision  # noqa: PLC0415  (imports torch)

            torchvision()  # whose import may need help
        return _import_target(target)
    except Exception as error:  # whatever a module of the user's raises on import
        reason = first_line(error)
        raise UserError(key, target, f"Error loading '{target}': {type(error).__name__}({reason})") from error


def _import_target(target: str) -> Any:
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
    """True if a dotted path names `kind` or a subclass of it; see `import_target`."""
    found = import_target(key, target)
    return isinstance(found, type) and issubclass(found, kind)


def check_kind(path: str, node: Mapping[str, object], kind: type) -> None:
    """Look at what a node and the nodes in it would call, before anything is called.

    The argument that takes a node in it must say by its annotation what it must be.

    Args:
        node: node with a `_target_`.

    Raises:
        UserError: it names nothing, makes something else, does not say what it makes, or is a class of the
            user's with a value that its annotation does not allow.
    """
    key, target = f"{path}._target_", node["_target_"]
    if not isinstance(target, str):
        raise UserError(key, target, "must be the dotted path of a class or function")
    found = import_target(key, target)
    is_type = isinstance(found, type)
    makes = [found] if is_type else _classes(_hints(found).get("return"))
    if not makes or not all(issubclass(each, kind) for each in makes):
        unsaid = callable(found) and not makes
        message = f", and say so: def ...(...) -> {kind.__name__}" if unsaid else ""
        raise UserError(key, target, f"must make a {kind.__name__}{message}")
    function = found.__init__ if is_type else found
    if not target.startswith("fedsplit."):  # this package's own were read from its source, before any import
        _check_values(path, node, _hints(function, include_extras=True))
    if node.get("_recursive_", True):
        takes = _hints(function)
        for name, value in node.items():
            _check_argument(f"{path}.{name}", value, takes.get(name))


def _check_values(path: str, node: Mapping[str, object], takes: Mapping[str, object]) -> None:
    for name, value in node.items():
        if name in takes and not isinstance(value, Mapping) and not fits(takes[name], value):
            raise UserError(f"{path}.{name}", value, f"must be {describe_allowed(takes[name])}")


def _check_argument(path: str, value: object, annotation: object) -> None:
    if isinstance(value, Mapping) and "_target_" in value:
        makes = _classes(_result(annotation) if value.get("_partial_") else annotation)
        if len(makes) != 1:
            message = "may be called only for an argument that is annotated with one class"
            raise UserError(f"{path}._target_", value["_target_"], message)
        check_kind(path, value, makes[0])
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _check_argument(f"{path}.{name}", each, None)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_argument(path, each, _item(annotation))


def _hints(function: object, *, include_extras: bool = False) -> Mapping[str, object]:
    """Annotations of a function; none where it has none, or names what only a type checker imports."""
    try:
        return get_type_hints(function, include_extras=include_extras)
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
    """Return type of the function that an annotation asks for."""
    asked = (annotation, *get_args(annotation))
    return next((get_args(each)[-1] for each in asked if get_origin(each) is Callable), None)


def _item(annotation: object) -> object:
    """Item type of the list that an annotation asks for."""
    asked = (annotation, *get_args(annotation))
    return next((get_args(each)[0] for each in asked if get_origin(each) in (list, tuple, Sequence)), None)


Built = TypeVar("Built")


@dataclass(frozen=True)
class Component:
    """Part of a configuration that describes an object to be built.

    Args:
        key: the place, as `algorithm` or `quant.weights.up`; errors name it.
        target: dotted path of a class or function; empty where another machine says it.
        arguments: arguments of the target, plain values; a `_target_` in them is built first, and Hydra's own
            keys (`_recursive_`, `_partial_`, `_args_`) mean what they mean to Hydra.
    """

    key: str
    target: str
    arguments: Mapping[str, object]

    @classmethod
    def of(cls, key: str, node: Mapping[str, object], beside: Collection[str] = ()) -> Self:
        """Read a node of a configuration; the keys `beside` are no arguments."""
        arguments = {name: value for name, value in node.items() if name not in (*beside, "_target_")}
        return cls(key, str(node.get("_target_", "")), arguments)

    def plain(self) -> dict[str, object]:
        """The node that `of` reads."""
        return {**({"_target_": self.target} if self.target else {}), **self.arguments}

    def import_target(self) -> object:
        """Import the target of the component, without calling it; `UserError` where there is none."""
        return import_target(f"{self.key}._target_", self.target)

    def is_class(self, kind: type) -> bool:
        """True if the target is `kind` or a subclass of it; raises as `import_target`."""
        return is_class(f"{self.key}._target_", self.target, kind)

    def build(
        self, kind: type[Built], *, offered: Mapping[str, object] | None = None, **objects: object
    ) -> Built:
        """Call the target, with objects that no configuration can hold.

        What it builds is known before it is called, see `check_kind`.

        Args:
            offered: objects that are given only to what has arguments of their names.

        Raises:
            UserError: the target cannot be imported, does not take these arguments or builds something else.
        """
        node = self.plain()
        for name in objects.keys() & node.keys():
            raise UserError(f"{self.key}.{name}", node[name], "no such key: it is given by the run itself")
        check_kind(self.key, node, kind)
        try:
            factory = _factory(f"{self.key}._target_", deepcopy(node))
            takes = _signature(factory.func)
            objects |= {name: each for name, each in (offered or {}).items() if name in takes.parameters}
            takes.bind(*factory.args, **{**factory.keywords, **objects})
        except Exception as error:  # whatever a class of the user's raises on import
            lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
            reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])  # why it cannot be loaded is below
            raise UserError(f"{self.key}._target_", self.target, reason) from error
        try:
            built = factory(**objects)
        except UserError as error:
            if "." in error.key:
                raise
            raise UserError(f"{self.key}.{error.key}", error.value, error.allowed) from error
        if not isinstance(built, kind):
            raise UserError(f"{self.key}._target_", self.target, f"must make a {kind.__name__}")
        return built


@cache  # of a class without an `__init__` it is parsed from a text
def _signature(target: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(target)


def component_of(key: str, target: type, **arguments: object) -> Component:
    """The component that builds `target`, a class that can be imported, with plain arguments."""
    return Component(key, f"{target.__module__}.{target.__qualname__}", arguments)


def _factory(key: str, node: Mapping[str, object]) -> "partial[object]":
    """The call that a node stands for, as `hydra.utils.instantiate` reads it; its kind was checked before."""
    inner = node.get("_recursive_", True)
    given = {name: _build(key, each) if inner else each for name, each in node.items() if name[0] != "_"}
    positional = node.get("_args_", ())
    assert isinstance(positional, list | tuple)
    target = import_target(key, str(node["_target_"]))
    return partial(target, *(_build(key, each) for each in positional), **given)


def _build(key: str, value: object) -> object:
    """A value in which what each node in it stands for has been called."""
    if isinstance(value, list):
        return [_build(key, each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: _build(key, each) for name, each in value.items()}
    factory = _factory(key, value)
    return factory if value.get("_partial_") else factory()
