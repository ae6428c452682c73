"""One run, new or gone on with, as overrides ask for it."""

from collections.abc import Sequence
from pathlib import Path

from hydra.types import RunMode

from fedsplit.cli.resuming import resumable
from fedsplit.config.compose import check_hydra, choices_of, composed, composing, hydra_path, plain
from fedsplit.config.overrides import check_beside
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.tasks.running import perform


def compose_single(overrides: Sequence[str]) -> tuple[Path, RunConfig]:
    """The directory and the configuration that overrides ask for.

    Raises:
        UserError: something asked for cannot be.
    """
    with composing():
        config = composed(overrides)
        check_hydra(config)
        directory, settings = hydra_path(config, "hydra.run.dir"), plain(config)
    if config.hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode", "MULTIRUN", "a sweep is asked for by -m")
    check_beside(settings, list(config.hydra.overrides.task))
    asked = RunConfig.parse(settings, choices_of(config))
    if asked.sweep and asked.sweep.skip_finished:
        raise UserError("sweep.skip_finished", True, "is for a sweep, which is asked for by -m")
    return directory.absolute(), asked


def single(directory: Path, config: RunConfig) -> None:
    """Do what `compose_single` composed.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    with resumable(directory):
        perform(directory, config)
