"""Where runs are: a path, a sweep's directory, a glob, or anywhere below a folder."""

import os
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.reports.runs import is_run


@dataclass(frozen=True)
class Found:
    """Directories of runs in alphabetical order; and those beside them, as in a sweep, that are of none."""

    runs: tuple[Path, ...]
    others: tuple[Path, ...]


def runs_at(place: str, key: str) -> Found:
    """The runs that a path or a glob stands for, at any depth below it.

    Raises:
        UserError: a folder cannot be read; `key` is what named the place.
    """
    path = user_path(place, key)
    paths = [path] if path.exists() else map(Path, sorted(glob(str(path), recursive=True)))
    runs: list[Path] = []
    others: list[Path] = []
    try:
        for path in paths:
            _look(path, runs, others)
    except OSError as error:
        raise UserError(key, place, f"must be readable ({error.strerror})") from error
    return Found(tuple(runs), tuple(others))


def _look(path: Path, runs: list[Path], others: list[Path]) -> bool:
    """Add what is at or below a path; whether it is a run."""
    if is_run(path):
        runs.append(path)
        return True
    if not path.is_dir():
        return False
    beside: list[Path] = []
    jobs = False
    folders = (entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    for each in sorted(Path(entry) for entry in folders if not entry.name.startswith(".")):
        before = len(runs)
        jobs |= _look(each, runs, others)
        if len(runs) == before:
            beside.append(each)
    others += beside if jobs else []
    return False
