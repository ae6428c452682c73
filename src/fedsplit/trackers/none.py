"""Tracker that shows nothing elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from fedsplit.trackers.tracker import Row, Tracker


class NoTracker(Tracker):
    """A run is in its own files alone."""

    @override
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """Do nothing at the start of a run."""

    @override
    def round(self, row: Row) -> None:
        """Do nothing after a round."""

    @override
    def finish(self, results: Mapping[str, object] | None) -> None:
        """Do nothing at the end of a run."""
