"""Goes on with a run that was begun, from the configuration and the checkpoint in its directory."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from fedsplit.building.process import prepare_process
from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.checks import RESUMABLE
from fedsplit.config.commands import resume_command
from fedsplit.config.dotted_keys import below
from fedsplit.config.run_config import RunConfig
from fedsplit.config.stored import with_changes
from fedsplit.config.traits import traits_of
from fedsplit.errors import UserError, format_count
from fedsplit.files.paths import display_path
from fedsplit.machine.allowance import allowing_a_run_directory
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.identity import refuse_changed_config
from fedsplit.recording.metrics import StoppedBy
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.training.state_form import identity_of


def resume(path: Path, changes: Mapping[str, object]) -> RunConfig:
    """Go on with the run in a directory from its last checkpoint, or from its start where there is none.

    Args:
        path: directory of the run.
        changes: new values, by key.

    Returns:
        The run's configuration, with these values.

    Raises:
        UserError: there is no run, another process is at work in it, it is damaged, or a key may not be
          given anew.
        RunFailed: the run could not be carried to its end.
    """
    directory = RunDirectory.existing(path)
    with closing(directory):
        directory.claim()
        checkpoint = directory.latest_checkpoint()
        config = resumed_config(directory, changes, checkpoint)
        prepare_process(config)
        with allowing_a_run_directory():
            experiment = Experiment(config, _start(config.origin.run, has_begun=checkpoint is not None))
        if checkpoint is not None:
            experiment.restore(checkpoint)
        if stopped_by := experiment.stopped_by():
            print(_describe_end(path, len(experiment.records), stopped_by))
        experiment.run(directory)
    return config


def _describe_end(path: Path, rounds: int, stopped_by: StoppedBy) -> str:
    """Line that says that a run has finished, and how it would be trained further."""
    value = f"={2 * rounds}" if stopped_by == "rounds" else "=..."
    how = "a lower" if stopped_by == "target_perplexity" else "a larger"
    further = f"to train further give it {how} {stopped_by}: {resume_command(path)} {stopped_by}{value}"
    after = f"{format_count(rounds, 'round')}, stopped by {stopped_by}"
    return f"{display_path(path)} has finished after {after}; nothing is left to do; {further}"


def _start(run: str | None, *, has_begun: bool) -> TrainedStart | None:
    """Trained models that the run started from, which may be gone where it has begun.

    A checkpoint holds all of them that learns, and a digest of the rest.
    """
    try:
        return TrainedStart.of(run)
    except UserError:
        if has_begun:
            return None
        raise


def resumed_config(
    directory: RunDirectory, changes: Mapping[str, object], checkpoint: Checkpoint | None = None
) -> RunConfig:
    """Configuration of the run in `directory` with new values; `trust` is of this command alone.

    Args:
        directory: directory of the run.
        changes: new values, by key.
        checkpoint: checkpoint that the run goes on from; None where it begins.

    Raises:
        UserError: another key is given, or its configuration is damaged or not that of the checkpoint.
    """
    for key, value in changes.items():
        if not below(key, RESUMABLE) or key.startswith("dataset.root."):
            raise UserError(key, value, f"beside resume only {', '.join(RESUMABLE)} may be given")
    trust = changes.get("trust", False)
    if not isinstance(trust, bool):
        raise UserError("trust", trust, "must be true or false")
    config = directory.run_config(trust=trust)
    if not traits_of(config.task.target).counts_rounds:
        task = config.choice("task")
        message = f"was left behind by task={task}, which is done again and not gone on with"
        raise UserError("resume", directory.path, message)
    if "dataset.root" in changes and "root" not in config.dataset.arguments:
        message = f"dataset={config.choice('dataset')} is in no files of its own"
        raise UserError("dataset.root", changes["dataset.root"], message)
    config = with_changes(config, changes)
    if checkpoint is not None:
        refuse_changed_config(identity_of(checkpoint)["config"], config)
    return config
