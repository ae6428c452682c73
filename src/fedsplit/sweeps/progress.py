"""How far a job is, from what its run has written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsplit.files.bounded import csv_table, json_in, number, whole


@dataclass(frozen=True)
class Progress:
    """How far a run is: rounds, the last test accuracy (a fraction), bytes so far, seconds of its rounds.

    What is no training has no rounds.
    """

    rounds: int | None
    accuracy: float | None
    load: int
    seconds: float


def is_finished(directory: Path) -> bool:
    """Whether the run there came to its end."""
    return (directory / "results.json").is_file()


def progress_of(directory: Path) -> Progress | None:
    """How far the run in a directory is; None before its first round, or where rounds are not 0, 1, 2, ..."""
    try:
        results = json_in(directory / "results.json")
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
    return Progress(len(rows), accuracies[-1] if accuracies else None, whole(rows[-1]["load"]), seconds)
