"""Reads files that somebody else may have written: bounded in size, depth and numbers, whatever they hold.

Everything that is read from a run's directory, a sweep's or a deployed model's goes through here, tensors
aside. Numbers have 64 bits: beyond them Python's own whole numbers get slow, and refuse to become texts.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fedsplit.errors import UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
_NO_TEXT = re.compile(r"\\u[dD][89a-fA-F]")
"""Bytes of names that are no text, as YAML escapes them: libyaml refuses them, the slower loader does not."""
MIB = 2**20
_MOST_DEPTH = 20
_LONGEST_TEXT = 4096
"""Characters of a text in YAML: paths of directories are the longest."""
_LONGEST_CELL = 1000
"""Characters of a cell of CSV: names of classes are the longest."""
_LARGEST_WHOLE = 2**63 - 1
_LARGEST = 1e39
"""Largest number in CSV: more than float32 holds, and small enough that sums and margins stay finite."""
MOST_CLIENTS, MOST_CLASSES = 100_000_000, 100_000


class Damage(ValueError):
    """Description of a damaged file, in words that begin with its name."""


def text(path: Path, most: int = MIB) -> str:
    """The text of a file of at most so many bytes.

    Raises:
        OSError: it cannot be read.
        Damaged: it has more, or is no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Damage(f"{path.name} has more than {most / MIB:g} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damage(f"{path.name} is no UTF-8") from error


def yaml_in(path: Path, most: int = MIB, most_values: int = 100_000) -> Any:
    """Content of a YAML file: plain values, without tags and aliases.

    Raises:
        OSError: it cannot be read.
        Damaged: it is no YAML, or beyond all bounds.
    """
    content = text(path, most)
    loader = yaml.SafeLoader if _NO_TEXT.search(content) else _LOADER
    try:
        # before anything is made of it: making goes as deep as it is nested
        _check_events(path.name, yaml.parse(content, Loader=loader), most_values)
        found = yaml.load(content, Loader=loader)
    except Damage:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no date, or a number too long
        raise Damage(f"{path.name} is damaged: no YAML of plain values") from error
    _check_numbers(path.name, found)
    return found


def _check_events(name: str, events: Iterable[yaml.Event], most_values: int) -> None:
    depth = 0
    for number, event in enumerate(events):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise Damage(f"{name} is damaged: it has a tag or an alias")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_DEPTH or number > most_values:
            raise Damage(f"{name} is nested deeper than {_MOST_DEPTH}, or has more than {most_values} values")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_TEXT:
            raise Damage(f"{name} has a text of more than {_LONGEST_TEXT} characters")


def json_in(path: Path, most: int = 4 * MIB, most_digits: int = 19) -> Any:
    """Content of a JSON file of at most so many bytes, with whole numbers of at most so many digits.

    Raises:
        OSError: it cannot be read.
        Damaged: it is no JSON, or beyond all bounds.
    """
    content = text(path, most)
    try:
        return json.loads(content, parse_int=lambda digits: _parse_whole_number(digits, most_digits))
    except (ValueError, RecursionError) as error:
        message = f"no JSON, or a whole number of more than {most_digits} digits"
        raise Damage(f"{path.name} is damaged: {message}") from error


def _parse_whole_number(digits: str, most_digits: int) -> int:
    if len(digits.lstrip("-")) > most_digits:
        raise ValueError(f"more than {most_digits} digits")
    return int(digits)


def _check_numbers(name: str, node: object) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _check_numbers(name, key)
            _check_numbers(name, value)
    elif isinstance(node, list | tuple):
        for item in node:
            _check_numbers(name, item)
    elif isinstance(node, int) and abs(node) > _LARGEST_WHOLE:
        raise Damage(f"{name} has a whole number beyond 64 bits")


def csv_rows(path: Path, most: int = 64 * MIB) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of a CSV file; empty lines are left out.

    Raises:
        OSError: it cannot be read.
        Damaged: it is no CSV, or beyond all bounds.
    """
    with path.open("rb") as file:
        reader = csv.reader(_lines(path.name, file, most))
        try:
            for row in reader:
                if any(len(cell) > _LONGEST_CELL for cell in row):
                    message = f"a cell of more than {_LONGEST_CELL} characters"
                    raise Damage(f"line {reader.line_num} of {path.name} has {message}")
                if row:
                    yield reader.line_num, list(map(_printable, row))
        except csv.Error as error:
            raise Damage(f"{path.name} is damaged: no CSV") from error


def _printable(cell: str) -> str:
    """A cell, in which what no terminal and no font shows is an escape."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cell)


def _lines(name: str, file: Any, most: int) -> Iterator[str]:
    while line := file.readline(MIB + 1):
        most -= len(line)
        if len(line) > MIB or most < 0:
            raise Damage(f"{name} is larger than can be, or has a line that is")
        yield line.decode("utf-8", "backslashreplace")  # names of classes are those of folders: any bytes


def csv_table(path: Path, most: int = 64 * MIB) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The names of the columns of a CSV file, and line number and cells by them of its rows; see `csv_rows`.

    Raises:
        OSError: it cannot be read.
        Damaged: see `csv_rows`; while the rows are read: one is not whole.
    """
    lines = csv_rows(path, most)
    _, columns = next(lines, (0, list[str]()))

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for line, row in lines:
            if len(row) != len(columns):
                raise Damage(f"line {line} of {path.name} must be whole")
            yield line, dict(zip(columns, row, strict=True))

    return columns, rows()


def parse_whole_number(cell: str, most: int = _LARGEST_WHOLE) -> int:
    """A whole number from 0 to `most`; `ValueError` where the cell holds another, or none."""
    if not (cell.isascii() and cell.isdigit() and len(cell) < 20) or (found := int(cell)) > most:
        raise ValueError(f"{cell[:20]!r} is no whole number up to {most}")
    return found


def number(cell: str) -> float:
    """A number, finite ones up to 1e39; `ValueError` where the cell holds another, or none."""
    found = float(cell)
    if _LARGEST < abs(found) < float("inf"):
        raise ValueError(f"{cell[:20]!r} is too large")
    return found


@contextmanager
def reading(run: Path, name: str, hint: str) -> Iterator[None]:
    """Turn errors of reading a file in a run's directory into a `UserError`.

    Args:
        hint: description of the runs that have the file, for errors.

    Raises:
        UserError: it is not there, cannot be read, or is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("run", run, f"must hold {name}; {hint}") from error
    except OSError as error:
        raise UserError("run", run, f"must be readable ({error.strerror})") from error
    except (ValueError, KeyError) as error:
        raise UserError("run", run, f"{name} must not be damaged ({error})") from error
