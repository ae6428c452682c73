"""Paths as users write them and read them; light to import."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsplit.errors import UserError


def user_path(path: str | Path, key: str) -> Path:
    """A path with `~` or `~name` spelled out, which `key` named; `UserError` where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        message = "begins with ~ and names no user with a home directory"
        raise UserError(key, os.fspath(path), message) from error


@contextmanager
def in_one_line(key: str, value: object, message: str) -> Iterator[None]:
    """Turn an error of the system into a `UserError` of one line: `message`, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise UserError(key, value, f"{message} ({error.strerror})") from error


def new_directory(path: Path, key: str) -> None:
    """Make a directory for a new run or sweep; `key` is what named it.

    Raises:
        UserError: there is a run in it already, or it cannot be made.
    """
    if any(path.glob("config.yaml")) or any(path.glob("*/config.yaml")) or any(path.glob("checkpoint")):
        raise UserError(key, path, f"holds a run already; resume={path} goes on with one")
    with in_one_line(key, path, "cannot be made"):
        path.mkdir(parents=True, exist_ok=True)


def display_path(path: Path) -> Path:
    """Format a path for a reader: relative to the current directory, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_path(name: str) -> Path:
    """Path of `name` beside `src` in a checkout, or inside the package that a wheel installs."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parents[1] / name
