"""Trackers, which show elsewhere what a run writes to its files, and can do no harm."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias

from typing_extensions import override

from fedsplit.errors import first_line

Row: TypeAlias = Mapping[str, object]
"""Row of `metrics.csv`, by column; None is an empty cell."""


class Tracker(ABC):
    """Told of one run, in order. Whatever it raises ends the tracking, and never the run."""

    @abstractmethod
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """Start before the first round, or the first after a resume.

        Args:
            config: configuration of the run, as in its `config.yaml`.
            directory: directory of the run; what the tracker writes goes to a folder of its own in there.
            rows: rows of the rounds that were run already. What an earlier process told of later rounds is
                void.
        """

    @abstractmethod
    def round(self, row: Row) -> None:
        """Take the row of a round.

        Args:
            row: row of the round. The last round may come once more, with only `round` and what was measured
                at the end of the run.
        """

    @abstractmethod
    def finish(self, results: Mapping[str, object] | None) -> None:
        """Take note of the end of the run.

        Args:
            results: results, as in `results.json`; None where the run failed or was interrupted.
        """


def numbers(row: Row) -> dict[str, float]:
    """The values of a row, but for `round`, under names that are grouped by what stands before a slash."""
    return {
        column.replace(".", "/", 1): value
        for column, value in row.items()
        if column != "round" and isinstance(value, int | float)
    }


_LOG = logging.getLogger("fedsplit")


class Harmless(Tracker):
    """Tells another tracker, until it first raises: that is a warning in the log, and it is off from then on.

    What it is given is a copy, so that it cannot change the run's own.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker

    @override
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        self._tell(lambda tracker: tracker.start(deepcopy(dict(config)), directory, list(map(dict, rows))))

    @override
    def round(self, row: Row) -> None:
        self._tell(lambda tracker: tracker.round(dict(row)))

    @override
    def finish(self, results: Mapping[str, object] | None) -> None:
        self._tell(lambda tracker: tracker.finish(deepcopy(results)))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            what(self._tracker)
        except (Exception, SystemExit) as error:
            name, kind = type(self._tracker).__name__, type(error).__name__
            _LOG.warning("%s is off from here on (%s: %s); the run goes on", name, kind, first_line(error))
            self._tracker = None
