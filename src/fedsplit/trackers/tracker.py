"""What a tracker is: it is told what a run writes to its files, to show it elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

Row: TypeAlias = Mapping[str, object]
"""Of `metrics.csv`, by column; None is an empty cell."""


class Tracker(ABC):
    """Told of one run, in order. Whatever it raises ends the tracking, and never the run."""

    @abstractmethod
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """Before the first round, or the first after a resume.

        Args:
            config: of the run, as in its `config.yaml`.
            directory: of the run; what the tracker writes goes to a folder of its own in there.
            rows: of the rounds that were run already. What an earlier process told of later rounds is void.
        """

    @abstractmethod
    def round(self, row: Row) -> None:
        """After a round.

        Args:
            row: of the round. The last round may come once more, with only `round` and what was measured at
                the end of the run.
        """

    @abstractmethod
    def finish(self, results: Mapping[str, object] | None) -> None:
        """At the end.

        Args:
            results: as in `results.json`; None where the run failed or was interrupted.
        """


def numbers(row: Row) -> dict[str, float]:
    """The values of a row, but for `round`, under names that are grouped by what stands before a slash."""
    return {
        column.replace(".", "/", 1): value
        for column, value in row.items()
        if column != "round" and isinstance(value, int | float)
    }
