"""Tracker that logs to Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Literal

import wandb
from typing_extensions import override

from fedsplit.files import bounded
from fedsplit.files.whole import write_text
from fedsplit.trackers.tracker import Row, Tracker, numbers

FINISH_S = 600.0
"""Seconds that the end of a run waits for uploads; what is left then stays in the files, for `wandb sync`."""


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, with its files in `wandb/` of the run's directory.

    It is logged in as `wandb login` or WANDB_API_KEY say; no key of this configuration holds a secret.

    Args:
        mode: `online`, or `offline`: files alone, which `wandb sync` uploads.
        entity: user or team that it belongs to; None is the default of whoever is logged in.
    """

    def __init__(self, *, mode: Literal["online", "offline"], project: str, entity: str | None) -> None:
        self._mode, self._project, self._entity = mode, project, entity
        self._run: wandb.Run | None = None

    @override
    def start(self, config: Mapping[str, object], directory: Path, rows: Sequence[Row]) -> None:
        """Log in; a resumed run goes on under its id, where steps that are there already stay.

        Raises:
            RuntimeError: nobody is logged in.
        """
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("not logged in: wandb login, WANDB_API_KEY, or tracker.mode=offline")
        folder = directory / "wandb"
        folder.mkdir(exist_ok=True)
        id_file = folder / "id"
        if not id_file.exists():
            write_text(id_file, token_hex(8))
        self._run = wandb.init(
            id=bounded.text(id_file),
            resume="allow",
            mode=self._mode,
            project=self._project,
            entity=self._entity,
            name=directory.name,
            dir=directory,
            config=dict(config),
            # nothing on standard output, no hook on it, and never the run of a job before this one
            settings=wandb.Settings(
                silent=True, console="off", reinit="create_new", finish_timeout=FINISH_S, disable_git=True
            ),
        )
        for row in rows:
            self.round(row)

    @override
    def round(self, row: Row) -> None:
        assert self._run is not None
        t = row["round"]
        assert isinstance(t, int)
        self._run.log(numbers(row), step=t)

    @override
    def finish(self, results: Mapping[str, object] | None) -> None:
        """Write results to the summary of the run, and end it."""
        assert self._run is not None
        if results is not None:
            self._run.summary.update({"results": results})
        self._run.finish(exit_code=0 if results is not None else 1)
