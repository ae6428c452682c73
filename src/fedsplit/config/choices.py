"""Where choices are: in a folder a group, this package's and one of the user's own."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fedsplit.errors import UserError
from fedsplit.files.paths import shipped_path, user_path

CONFIGS = shipped_path("hydra_config")
FLAG = "--config-dir"
_NAME = re.compile(r"[\w.-]{1,200}")
OWN_CHOICES = "FEDSPLIT_CONFIG_DIR"
"""Environment variable that names the user's directory of choices, so that a run's processes inherit it."""


def user_directory() -> Path | None:
    """The directory of the user's own choices, if there is one."""
    own = os.environ.get(OWN_CHOICES)
    return Path(own) if own else None


def directories() -> list[Path]:
    """All directories that hold a folder for each group."""
    own = user_directory()
    return [CONFIGS] if own is None else [CONFIGS, own]


def file_of(group: str, choice: str) -> Path | None:
    """The file of a choice; None where there is no such choice, or the text is no name of one."""
    if not _NAME.fullmatch(choice):
        return None
    files = (root / group / f"{choice}.yaml" for root in directories())
    return next((file for file in files if file.is_file()), None)


def names_of(group: str) -> list[str]:
    """All choices of a group, in alphabetical order."""
    return sorted({file.stem for root in directories() for file in (root / group).glob("*.yaml")})


@contextmanager
def user_choices(directory: str | Path | None) -> Iterator[None]:
    """Look choices up in a directory of the user's too, here and in processes started here.

    Args:
        directory: directory as the user gives it; None: the one of the environment, if there is any.

    Raises:
        UserError: there is no such directory, or a file in it would have to stand for one of this package.
    """
    before = os.environ.get(OWN_CHOICES)
    directory = directory or before
    if not directory:
        yield
        return
    root = user_path(directory, FLAG).absolute()
    if not root.is_dir():
        raise UserError(FLAG, directory, "there is no such directory")
    for file in sorted(root.rglob("*.yaml")):
        if (CONFIGS / (place := file.relative_to(root))).is_file():
            raise UserError(FLAG, directory, f"{place} is a file of fedsplit's own; rename it")
    os.environ[OWN_CHOICES] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[OWN_CHOICES]
        else:
            os.environ[OWN_CHOICES] = before


def canonical(group: str, choice: str) -> str:
    """The choice itself, or the one that it is another name of: all that its file holds is that one."""
    file = file_of(group, choice)
    content = _content(file) if file is not None else {}
    match content.get("defaults"):
        case [str(other)] if len(content) == 1:
            return other
    return choice


def target_of(group: str, choice: str) -> str | None:
    """The `_target_` that the file of a choice gives, or one of the files that it is made of."""
    file = file_of(group, choice)
    return _target_in(group, file) if file is not None else None


def _content(file: Path) -> dict[str, Any]:
    """Content of a file; empty where it cannot be read, of which whoever composes it is told."""
    return _read(file, file.stat().st_mtime_ns)


@cache
def _read(file: Path, _: int) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _target_in(group: str, file: Path) -> str | None:
    content = _content(file)
    for node in (content, content.get(group)):  # under its own name where the file sets other keys too
        if isinstance(node, dict) and "_target_" in node:
            return str(node["_target_"])
    for each in content.get("defaults", ()):
        found: list[str | None]
        if isinstance(each, dict):  # as /optimizer@_here_: adam
            found = [target_of(key.strip("/").partition("@")[0], name) for key, name in each.items()]
        else:
            found = [target_of(group, each)] if each != "_self_" else []
        if found and found[0] is not None:
            return str(found[0])
    return None
