"""Tracker that writes event files of TensorBoard."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from torch.utils.tensorboard import SummaryWriter
from typing_extensions import override

from fedsplit.trackers.tracker import Row, Tracker, numbers


class TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run's directory: `tensorboard --logdir saves` shows all runs.

    Numbers are kept in double precision, as in `metrics.csv`. Each is written out before the next round.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    @override
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """Begin a log; a resume adds a file that holds all rounds, and voids those before it."""
        # The first start is marked too: TensorBoard takes the first mark of a log for no restart.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=0)
        self._writer.add_text("config", _verbatim(yaml.safe_dump(dict(config), sort_keys=False)), 0)
        for row in rows:
            self.round(row)

    @override
    def round(self, row: Row) -> None:
        assert self._writer is not None
        for tag, value in numbers(row).items():
            self._writer.add_scalar(tag, value, row["round"], new_style=True, double_precision=True)
        self._writer.flush()

    @override
    def finish(self, results: Mapping[str, object] | None) -> None:
        assert self._writer is not None
        if results is not None:
            self._writer.add_text("results", _verbatim(json.dumps(results, indent=2)), 0)
        self._writer.close()


def _verbatim(text: str) -> str:
    """Indented block for TensorBoard's Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
