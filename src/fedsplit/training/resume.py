"""Goes on with a run that was begun, from the configuration and the checkpoint in its directory."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.checks import RESUMABLE
from fedsplit.config.chosen_names import chosen_name
from fedsplit.config.compose import composed, composing, plain
from fedsplit.config.dotted_keys import below
from fedsplit.errors import UserError
from fedsplit.files.paths import shown
from fedsplit.machine.allowance import allowing_a_run_directory
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.identity import refuse_changed_config
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.recording.stored_config import checked, stored_config
from fedsplit.training.experiment import Experiment
from fedsplit.training.state_form import identity_of


def resume(path: Path, changes: Mapping[str, Any]) -> None:
    """Go on with the run in a directory from its last checkpoint, or from its start where there is none.

    Args:
        path: of the directory.
        changes: what is given anew, by key.

    Raises:
        UserError: there is no run, another process is at work in it, it is damaged, or something may not be
            given anew.
        RunFailed: the run could not be carried to its end.
    """
    directory = RunDirectory.existing(path)
    with closing(directory):
        directory.claim()
        checkpoint = directory.latest_checkpoint()
        config = resumed_config(directory, changes, checkpoint)
        # a checkpoint holds all that came of the models that the run started from, which may be gone
        with allowing_a_run_directory():
            experiment = Experiment(config, None if checkpoint else TrainedStart.of(config["run"]))
        if checkpoint is not None:
            experiment.restore(checkpoint)
        if stopped_by := experiment.stopped_by():
            told = f"{shown(path)} has finished: {len(experiment.records)} rounds, stopped by {stopped_by}"
            print(f"{told}; a larger {stopped_by}= goes on with it")
        experiment.run(directory)


def resumed_config(
    directory: RunDirectory, changes: Mapping[str, Any], checkpoint: Checkpoint | None = None
) -> dict[str, Any]:
    """Configuration of the run in `directory`, with what may be given anew; `trust` is of this command alone.

    Args:
        directory: of the run.
        changes: what is given anew, by key.
        checkpoint: that the run goes on from; None where it begins.

    Raises:
        UserError: something else is given, or its configuration is damaged or not that of the checkpoint.
    """
    for key, value in changes.items():
        if not below(key, RESUMABLE) or key.startswith("dataset.root."):
            raise UserError(key, value, f"beside resume only {', '.join(RESUMABLE)} may be given")
    trust = changes.get("trust", False)
    if not isinstance(trust, bool):
        raise UserError("trust", trust, "must be true or false")
    config = stored_config(directory, trust=trust)
    if (task := config["choices"]["task"]) != "train":
        told = f"was left behind by task={task}, which is done again and not gone on with"
        raise UserError("resume", directory.path, told)
    own = {key: value for key, value in changes.items() if not below(key, ("tracker", "dataset"))}
    config = {**config, **own, **_tracked(config, changes)}
    if "dataset.root" in changes:
        if "root" not in config["dataset"]:
            told = f"dataset={config['choices'].get('dataset')} is in no files of its own"
            raise UserError("dataset.root", changes["dataset.root"], told)
        config["dataset"] = {**config["dataset"], "root": changes["dataset.root"]}
    checked(config)
    if checkpoint is not None:
        refuse_changed_config(identity_of(checkpoint)["config"], config)
    return config


def _tracked(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration is about the tracker, with a choice and keys of its own given anew."""
    node, choices = config["tracker"], config["choices"]
    if "tracker" in changes:
        choices = {**choices, "tracker": str(changes["tracker"])}
        with composing():
            node = plain(composed([f"tracker={choices['tracker']}"]))["tracker"]
    keys = {k.removeprefix("tracker."): v for k, v in changes.items() if k.startswith("tracker.")}
    tracker = {**node, **keys}
    if "_target_" in keys:
        choices = {**choices, "tracker": chosen_name({"tracker": tracker}, "tracker", choices["tracker"])}
    return {"tracker": tracker, "choices": choices}
