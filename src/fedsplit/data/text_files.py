"""Reads files of texts that somebody else may have written: bounded in size, refused in one line."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from fedsplit.errors import UserError
from fedsplit.files.bounded import MIB, Damage, json_in, text
from fedsplit.files.paths import user_path

_LARGEST_FILE = 512 * MIB
"""Shakespeare's plays as LEAF cuts them take 350 MB."""


@contextmanager
def reading(root: str, layout: str) -> Iterator[Path]:
    """The folder `root`, while files in it are read.

    Args:
        root: `dataset.root`.
        layout: names of the files that must be there, and where they come from.

    Raises:
        UserError: one is not there, cannot be read, or is damaged.
    """
    try:
        yield user_path(root, "dataset.root")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError("dataset.root", root, f"must hold {layout}") from error
    except OSError as error:
        message = f"{error.filename} cannot be read ({error.strerror})"
        raise UserError("dataset.root", root, message) from error
    except Damage as error:
        raise UserError("dataset.root", root, f"{error}; it must hold {layout}") from error


def rows(path: Path) -> list[list[str]]:
    """Cells of each row of a CSV file, as they are; empty lines are left out.

    Raises:
        OSError: it cannot be read.
        Damaged: it is no CSV in UTF-8, or too large.
    """
    reader = csv.reader(StringIO(whole_text(path), newline=""), strict=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise Damage(f"line {reader.line_num} of {path.name} is no CSV ({error})") from error


def lines(path: Path) -> list[str]:
    """The lines of a text file without their ends; see `rows`."""
    return whole_text(path).replace("\r\n", "\n").split("\n")


def columns(path: Path, names: Sequence[str], *, tabs: bool = False) -> list[list[str]]:
    """Cells, in the order of `names`, of each row of a table whose first row names its columns; see `rows`.

    Args:
        tabs: True if cells are between tabs, as they are; else it is CSV.
    """
    table = [line.split("\t") for line in lines(path) if line] if tabs else rows(path)
    head = table[0] if table else []
    if missing := [name for name in names if name not in head]:
        raise Damage(f"{path.name} has no column {missing[0]}")
    where = [head.index(name) for name in names]
    if short := [number for number, row in enumerate(table, 1) if len(row) != len(head)]:
        raise Damage(f"row {short[0]} of {path.name} must have {len(head)} cells")
    return [[row[i] for i in where] for row in table[1:]]


def json_file(path: Path) -> Any:
    """Content of a JSON file; see `rows`."""
    return json_in(path, _LARGEST_FILE)


def whole_text(path: Path) -> str:
    """The text of a file, of which a mark of its encoding at the start is left out; see `rows`."""
    return text(path, _LARGEST_FILE).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
