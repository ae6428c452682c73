"""Reads the signature of a `_target_` from its source, without importing it.

A configuration is checked before anything heavy (torch) is imported; the signature of the class that
a choice names is the schema of that choice.
"""

import ast
import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from fedsplit.config.values import VOCABULARY, OwnPath


@dataclass(frozen=True)
class Signature:
    """Annotations by argument name (`None` where one cannot be read here); `open` accepts any name."""

    annotations: dict[str, object]
    open: bool = False


@cache
def _parse(module: str) -> ast.Module | None:
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # whatever a package of the user's raises on import: who needs it will tell
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


class _Names(dict[str, object]):
    """Names that annotations of a module may use: VOCABULARY, and type aliases, its own and imported ones."""

    def __init__(self, tree: ast.Module) -> None:
        super().__init__(VOCABULARY)
        self._tree = tree

    def __missing__(self, name: str) -> object:
        for node in self._tree.body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == name
                and ast.unparse(node.annotation) == "TypeAlias"
            ):
                return _annotation(node.value, self._tree)
        module, _, imported = (_imported_from(self._tree, name) or "").rpartition(".")
        tree = _parse(module) if module.split(".")[0] == "fedsplit" else None
        if tree is None:
            raise KeyError(name)
        return _Names(tree)[imported]


def _annotation(node: ast.expr | None, tree: ast.Module) -> object:
    if node is None:
        return None
    expression = compile(ast.Expression(node), "<annotation>", "eval")
    try:
        return eval(expression, {"__builtins__": {}}, _Names(tree))  # our own source, only names of types
    except (NameError, KeyError, TypeError, AttributeError):
        return None


def _of_function(function: ast.FunctionDef, tree: ast.Module, skip: int = 0) -> Signature:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args][skip:] + arguments.kwonlyargs
    return Signature(
        {a.arg: _annotation(a.annotation, tree) for a in named}, open=arguments.kwarg is not None
    )


def _imported_from(tree: ast.Module, name: str) -> str | None:
    """Dotted path of what a module imports under a name."""
    for node in tree.body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if (alias.asname or alias.name) == name:
                return f"{node.module}.{alias.name}"  # type: ignore[attr-defined]
    return None


@cache
def signature(target: str) -> Signature | None:
    """Signature of the class or function at the dotted path `target`; None if its source cannot be found."""
    module, _, name = target.rpartition(".")
    tree = _parse(module) if module.split(".")[0] == "fedsplit" else None
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_function(node, tree)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(tree, module, node)
    source = _imported_from(tree, name)
    return signature(source) if source else None


def own_paths(target: str) -> list[str]:
    """Names of the arguments of a target that are an `OwnPath`."""
    known = signature(target)
    annotations = known.annotations.items() if known else ()
    return [name for name, each in annotations if OwnPath in (each, *get_args(each))]


def _of_class(tree: ast.Module, module: str, node: ast.ClassDef) -> Signature:
    annotations: dict[str, object] = {}
    opened = False
    for base in (
        node.bases
    ):  # the arguments of a base class count where the class passes them on (dataclass, **kwargs)
        if isinstance(base, ast.Name):
            inherited = signature(_imported_from(tree, base.id) or f"{module}.{base.id}")
            annotations |= inherited.annotations if inherited else {}
            opened |= inherited.open if inherited else False
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            own = _of_function(member, tree, skip=1)
            return Signature({**annotations, **own.annotations} if own.open else own.annotations)
        if (
            isinstance(member, ast.AnnAssign)
            and isinstance(member.target, ast.Name)
            and "ClassVar" not in ast.unparse(member.annotation)
        ):
            annotations[member.target.id] = _annotation(member.annotation, tree)
    return Signature(annotations, opened)


def class_literals(target: str, *, inherited: bool = True) -> dict[str, Any]:
    """The class attributes that are literals of the class at the dotted path `target`.

    Empty where its source cannot be found. Bases are found that are imported by `from ... import ...`.
    """
    module, _, name = target.rpartition(".")
    tree = _parse(module) if module else None
    if tree is None:
        return {}
    node = next((each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name), None)
    if node is None:
        source = _imported_from(tree, name)
        return class_literals(source, inherited=inherited) if source else {}
    found: dict[str, Any] = {}
    for base in reversed(node.bases):
        if inherited and isinstance(base, ast.Name):
            found |= class_literals(_imported_from(tree, base.id) or f"{module}.{base.id}")
    for member in node.body:
        match member:
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.expr() as value):
                pass
            case ast.Assign(targets=[ast.Name(id=key)], value=value):
                pass
            case _:
                continue
        with suppress(ValueError):
            found[key] = ast.literal_eval(value)
    return found


def unknown_target(target: str) -> bool:
    """True if a `_target_` inside this package names nothing."""
    return target.split(".", maxsplit=1)[0] == "fedsplit" and signature(target) is None
