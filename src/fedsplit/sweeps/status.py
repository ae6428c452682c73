"""State of each job, in a small file below the sweep's directory, and the progress of its run."""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_table, json_in, number, parse_whole_number
from fedsplit.files.whole import write_json

STATUSES = ".jobs"
"""Folder below a sweep's directory: `<number>.json`, a `Status`, and `<number>.log`, what the job printed."""
RESULTS = "results.json"
"""File that a run writes at its end."""
State: TypeAlias = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Status:
    """State of a job; `error` is the last line of why it failed."""

    state: State
    error: str | None = None


def write_status(folder: Path, number: int, status: Status) -> None:
    """Write the state of a job, whole or not at all."""
    write_json(folder / f"{number}.json", asdict(status))


def read_status(folder: Path, number: int) -> Status | None:
    """Read the state of a job; None where it has not begun."""
    try:
        found = Status(**json_in(folder / f"{number}.json"))
    except (OSError, ValueError, TypeError):
        return None
    known = found.state in get_args(State) and isinstance(found.error, str | None)
    return found if known else None


def log_of(folder: Path, number: int) -> Path:
    """Path of the file that a job's output goes to."""
    return folder / f"{number}.log"


@contextmanager
def lock_job(folder: Path) -> Iterator[None]:
    """Hold the lock of a job that runs, so that nobody else goes on with it; it ends with the process."""
    with (folder / "lock").open("w", encoding="utf-8") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def lock_sweep(directory: Path, patience_s: float = 10.0) -> Iterator[None]:
    """Hold the lock of a sweep's directory: no other sweep works in it, and no job of an earlier one.

    Args:
        patience_s: seconds in which the jobs of a sweep that was killed end.

    Raises:
        UserError: another one is at work there.
    """
    (directory / STATUSES).mkdir(exist_ok=True)
    with (directory / STATUSES / "sweep.lock").open("w", encoding="utf-8") as file:
        _take(directory, file.fileno(), 0.0, "a sweep is at work there")
        with (directory / STATUSES / "lock").open("w", encoding="utf-8") as jobs:
            _take(directory, jobs.fileno(), patience_s, "jobs of an earlier sweep are still at work there")
        yield


def _take(directory: Path, lock: int, patience_s: float, otherwise: str) -> None:
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


@dataclass(frozen=True)
class Progress:
    """Progress of a run: rounds, the last test accuracy (a fraction), bytes so far, seconds of its rounds.

    What is no training has no rounds.
    """

    rounds: int | None
    accuracy: float | None
    load: int
    seconds: float


def is_finished(directory: Path, last: str = RESULTS) -> bool:
    """True if the job in a directory came to its end.

    Args:
        last: file that its task writes last of all.
    """
    return (directory / last).is_file()


def progress_of(directory: Path) -> Progress | None:
    """Progress of the run in a directory; None before its first round, or if rounds are not 0, 1, 2, ..."""
    try:
        results = json_in(directory / RESULTS)
        rounds, accuracy = results.get("rounds_run"), results["final_accuracy"]
        load, seconds = results["load"], results["seconds"]
        plain = isinstance(rounds, int | None) and isinstance(accuracy, int | float | None)
        if plain and isinstance(load, int) and isinstance(seconds, int | float):
            return Progress(rounds, accuracy, load, seconds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        return _last_of([row for _, row in csv_table(directory / "metrics.csv")[1]])
    except (OSError, ValueError, TypeError, KeyError):  # a row that is being written
        return None


def _last_of(rows: list[Mapping[str, str]]) -> Progress | None:
    if not rows or [int(row["round"]) for row in rows] != list(range(len(rows))):
        return None
    accuracies = [number(row["test_accuracy"]) for row in rows if row["test_accuracy"]]
    seconds = sum(number(row[column]) for row in rows for column in row if column.startswith("seconds."))
    return Progress(
        len(rows), accuracies[-1] if accuracies else None, parse_whole_number(rows[-1]["load"]), seconds
    )
