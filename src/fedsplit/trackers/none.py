"""No tracker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsplit.trackers.tracker import Row, Tracker


class NoTracker(Tracker):
    """A run is in its own files alone."""

    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """See `Tracker.start`."""

    def round(self, row: Row) -> None:
        """See `Tracker.round`."""

    def finish(self, results: Mapping[str, object] | None) -> None:
        """See `Tracker.finish`."""
