"""Train, and leave a run directory behind."""

from pathlib import Path

from typing_extensions import override

from fedsplit.building.process import prepare_process
from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.tasks.task import Task
from fedsplit.training.experiment import Experiment


class Train(Task):
    """A run of the algorithm."""

    counts_rounds = True
    announces = "{algorithm}: {model} on {dataset} ({distribution})"

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Build the parts of the run, then make its directory and train."""
        if config.origin.resume is not None:
            raise UserError("resume", config.origin.resume, "stands by itself, as resume=DIRECTORY")
        prepare_process(config)
        experiment = Experiment(config, TrainedStart.of(config.origin.run))
        experiment.run(RunDirectory.new(directory, "hydra.run.dir"))
