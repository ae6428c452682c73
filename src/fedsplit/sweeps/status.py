"""What a job tells of itself while it runs, wherever it runs: a small file below the sweep's directory."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fedsplit.errors import UserError
from fedsplit.files.bounded import json_in
from fedsplit.files.whole import write_json

STATUSES = ".jobs"
"""Folder below a sweep's directory: `<number>.json`, a `Status`, and `<number>.log`, what the job printed."""
State: TypeAlias = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Status:
    """How a job stands; `error` is the last line of why it failed."""

    state: State
    error: str | None = None


def tell(folder: Path, number: int, status: Status) -> None:
    """Write how a job stands, whole or not at all."""
    write_json(folder / f"{number}.json", asdict(status))


def told(folder: Path, number: int) -> Status | None:
    """How a job stands; None where it has not begun."""
    try:
        found = Status(**json_in(folder / f"{number}.json"))
    except (OSError, ValueError, TypeError):
        return None
    known = found.state in get_args(State) and isinstance(found.error, str | None)
    return found if known else None


def log_of(folder: Path, number: int) -> Path:
    """Where a job's output goes."""
    return folder / f"{number}.log"


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """While a job runs: nobody else goes on with it. A lock, for it ends with a process that is killed."""
    with (folder / "lock").open("w", encoding="utf-8") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(directory: Path, patience_s: float = 10.0) -> Iterator[None]:
    """While a sweep is at work in its directory: no other is, and no job of an earlier one.

    Args:
        patience_s: seconds in which the jobs of a sweep that was killed end.

    Raises:
        UserError: another one is at work there.
    """
    (directory / STATUSES).mkdir(exist_ok=True)
    with (directory / STATUSES / "sweep.lock").open("w", encoding="utf-8") as file:
        _taken(directory, file.fileno(), 0.0, "a sweep is at work there")
        with (directory / STATUSES / "lock").open("w", encoding="utf-8") as jobs:
            _taken(directory, jobs.fileno(), patience_s, "jobs of an earlier sweep are still at work there")
        yield


def _taken(directory: Path, lock: int, patience_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise UserError("hydra.sweep.dir", directory, otherwise) from error
            time.sleep(0.1)
        except OSError:
            return  # a file system without locks
        else:
            return
