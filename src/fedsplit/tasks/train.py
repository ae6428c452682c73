"""Train, and leave a run directory behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsplit.building.trained_start import TrainedStart
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.tasks.task import Task
from fedsplit.training.experiment import Experiment


class Train(Task):
    """A run of the algorithm."""

    counts_rounds = True
    announces = "{algorithm}: {model} on {dataset} ({distribution})"

    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """See `Task.run`: the parts are built before the directory is made."""
        if config["resume"] is not None:
            raise UserError("resume", config["resume"], "stands by itself, as resume=DIRECTORY")
        experiment = Experiment(config, TrainedStart.of(config["run"]))
        experiment.run(RunDirectory.new(directory, "hydra.run.dir"))
