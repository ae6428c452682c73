"""Paths as users write them; light to import."""

import os
from pathlib import Path

from fedsplit.errors import UserError


def user_path(path: str | Path, key: str) -> Path:
    """A path that a user gave, with `~` and `~name` at its start spelled out as home directories.

    Raises:
        UserError: there is no such user; `key` is what named the path.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        told = "begins with ~ and names no user with a home directory"
        raise UserError(key, os.fspath(path), told) from error
