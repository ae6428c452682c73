"""A tracker that can do a run no harm."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from fedsplit.errors import first_line
from fedsplit.trackers.tracker import Row, Tracker

_LOG = logging.getLogger("fedsplit")


class Harmless(Tracker):
    """Tells another tracker, until it first raises: that is a warning in the log, and it is off from then on.

    What it is given is a copy, so that it cannot change the run's own.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker

    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        self._tell(lambda tracker: tracker.start(deepcopy(dict(config)), directory, list(map(dict, rows))))

    def round(self, row: Row) -> None:
        self._tell(lambda tracker: tracker.round(dict(row)))

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
