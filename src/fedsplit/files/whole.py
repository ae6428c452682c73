"""Files and folders that are there whole or not at all: written beside their place, then renamed to it."""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import TextIO

import yaml


@contextmanager
def appearing(path: Path, *, beside: str | None = None, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to, which is renamed to it in the end.

    An error leaves nothing. A file that is there is replaced, and so is an empty folder.

    Args:
        beside: name of what is written, in the same folder; None: one after the name of `path`. What is there
            by that name, as where a write was killed, is removed.
        durable: True if the file must outlive a loss of power, and not only a kill.

    Raises:
        OSError: it cannot be written, or a folder that is not empty is there.
    """
    partial = path.with_name(beside or f".{path.name}.partial")
    _remove(partial)
    try:
        yield partial
        if durable:
            for each in (*partial.glob("*"), partial):
                _sync(each)
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise
    if durable:
        _sync(path.parent)


def write_text(path: Path, content: str) -> None:
    """Write a text, whole or not at all."""
    with appearing(path) as partial:
        partial.write_text(content, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_yaml(path: Path, content: Mapping[str, object]) -> None:
    """Write YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all; None gives an empty cell, and what names of files hold stays."""
    with appearing(path) as partial, csv_file(partial) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def csv_file(path: Path) -> TextIO:
    """A new file for lines of CSV, in which what names of files hold stays."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def csv_line(cells: Sequence[object]) -> str:
    """A line of CSV with its end, quoted where it must be."""
    line = StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
