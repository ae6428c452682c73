"""A choice of a group: what it calls and with which arguments; it builds that, or tells why it cannot."""

import inspect
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

from fedsplit.config.targets import check_kind, is_class, located
from fedsplit.errors import UserError

Built = TypeVar("Built")


@dataclass(frozen=True)
class Component:
    """What a configuration says at one place of what is to be built there.

    Args:
        key: the place, as `algorithm` or `quant.weights.up`; errors name it.
        target: dotted path of a class or function; empty where another machine says it.
        arguments: of the target, plain values; a `_target_` in them is built first, and Hydra's own keys
            (`_recursive_`, `_partial_`, `_args_`) mean what they mean to Hydra.
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

    def located(self) -> object:
        """What the target is, imported and not called.

        Raises:
            UserError: there is nothing such.
        """
        return located(f"{self.key}._target_", self.target)

    def is_class(self, kind: type) -> bool:
        """Whether the target is `kind` or a class that is one; raises as `located`."""
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
            taken = inspect.signature(factory).parameters
            objects |= {name: each for name, each in (offered or {}).items() if name in taken}
            inspect.signature(factory).bind(**objects)
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


def component_of(key: str, target: type, **arguments: object) -> Component:
    """The component that builds `target`, a class that can be imported, with plain arguments."""
    return Component(key, f"{target.__module__}.{target.__qualname__}", arguments)


def _factory(key: str, node: Mapping[str, object]) -> Callable[..., object]:
    """The call that a node stands for, as `hydra.utils.instantiate` reads it; its kind was checked before."""
    inner = node.get("_recursive_", True)
    given = {name: _build(key, each) if inner else each for name, each in node.items() if name[0] != "_"}
    positional = node.get("_args_", ())
    assert isinstance(positional, list | tuple)
    target = located(key, str(node["_target_"]))
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
