"""One run, new or gone on with, as overrides ask for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.types import RunMode

from fedsplit.cli.resuming import resumable
from fedsplit.config.checks import check
from fedsplit.config.compose import check_hydra, composed, composing, hydra_path, plain
from fedsplit.config.overrides import check_beside
from fedsplit.errors import UserError
from fedsplit.tasks.running import perform


def compose_single(overrides: Sequence[str]) -> tuple[Path, dict[str, Any], Mapping[str, str]]:
    """The directory, the checked configuration and the choices that overrides ask for.

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
    check(settings)
    if settings.get("sweep", {}).get("skip_finished"):
        raise UserError("sweep.skip_finished", True, "is for a sweep, which is asked for by -m")
    return directory.absolute(), settings, config.hydra.runtime.choices


def single(directory: Path, settings: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Do what `compose_single` composed.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    with resumable(directory):
        perform(directory, settings, choices)
