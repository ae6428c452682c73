"""How far a job is, from what its run has written."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


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
        results = json.loads((directory / "results.json").read_text("utf-8"))
        rounds = results.get("rounds_run")
        return Progress(rounds, results["final_accuracy"], results["load"], results["seconds"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return _last_of(list(csv.DictReader(file)))
    except (OSError, ValueError, TypeError, KeyError):  # a row that is being written
        return None


def _last_of(rows: list[Mapping[str, str]]) -> Progress | None:
    if not rows or [int(row["round"]) for row in rows] != list(range(len(rows))):
        return None
    accuracies = [float(row["test_accuracy"]) for row in rows if row["test_accuracy"]]
    seconds = sum(float(row[column]) for row in rows for column in row if column.startswith("seconds."))
    return Progress(len(rows), accuracies[-1] if accuracies else None, int(rows[-1]["load"]), seconds)
