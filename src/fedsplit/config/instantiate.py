"""Makes what a choice of a configuration names, and tells in one line why it cannot be made."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from functools import partial, reduce
from operator import getitem
from typing import Any, TypeVar

from fedsplit.config.checks import arguments
from fedsplit.config.targets import check_kind, located
from fedsplit.errors import UserError

Made = TypeVar("Made")


def make(
    kind: type[Made],
    config: Mapping[str, Any],
    path: str,
    *,
    offered: Mapping[str, Any] | None = None,
    **objects: Any,
) -> Made:
    """Make what the choice at `path` names, with objects that no configuration can hold.

    What it is is known before it is called, see `check_kind`.

    Those `offered` are given only to what has arguments of their names.

    Raises:
        UserError: its `_target_` cannot be imported, does not take these arguments or makes something else.
    """
    node = arguments(path, reduce(getitem, path.split("."), config))
    for name in objects.keys() & node.keys():
        raise UserError(f"{path}.{name}", node[name], "no such key: it is given by the run itself")
    check_kind(path, node, kind)
    try:
        factory = _factory(f"{path}._target_", deepcopy(node))
        taken = inspect.signature(factory).parameters
        objects |= {name: each for name, each in (offered or {}).items() if name in taken}
        inspect.signature(factory).bind(**objects)
    except Exception as error:  # whatever a class of the user's raises on import
        lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])  # why it cannot be loaded is below
        raise UserError(f"{path}._target_", node["_target_"], reason) from error
    try:
        made = factory(**objects)
    except UserError as error:
        if "." in error.key:
            raise
        raise UserError(f"{path}.{error.key}", error.value, error.allowed) from error
    if not isinstance(made, kind):
        raise UserError(f"{path}._target_", node["_target_"], f"must make a {kind.__name__}")
    return made


def _factory(key: str, node: Mapping[str, Any]) -> "partial[Any]":
    """The call that a node stands for, as `hydra.utils.instantiate` reads it; its kind was checked before."""
    inner = node.get("_recursive_", True)
    given = {name: _build(key, each) if inner else each for name, each in node.items() if name[0] != "_"}
    positional = node.get("_args_", ())
    return partial(located(key, node["_target_"]), *(_build(key, each) for each in positional), **given)


def _build(key: str, value: Any) -> Any:
    """A value in which what each node in it stands for has been called."""
    if isinstance(value, list):
        return [_build(key, each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: _build(key, each) for name, each in value.items()}
    factory = _factory(key, value)
    return factory if value.get("_partial_") else factory()
