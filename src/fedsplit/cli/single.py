"""One run, new or gone on with, as overrides ask for it; Ctrl-C says how to go on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.types import RunMode

from fedsplit.config.commands import resume_command
from fedsplit.config.compose import check_hydra, choices_of, compose_config, composing, hydra_path, plain
from fedsplit.config.overrides import check_beside, parse_overrides
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.tasks.task import go_on, perform


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """Let Ctrl-C say how to go on with the run that works in a directory."""
    try:
        yield
    except KeyboardInterrupt as error:
        begun = (directory / "config.yaml").is_file()
        raise KeyboardInterrupt(*[resume_command(directory)] if begun else []) from error


def extract_resume(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split overrides into the directory that `resume=` names, None without one, and the others.

    Raises:
        UserError: the directory is in quotes and cannot be read.
    """
    given = [each for each in overrides if each.startswith("resume=")]
    if not given or given[-1] == "resume=null":
        return None, list(overrides)
    path = given[-1].partition("=")[2]
    if not path:
        raise UserError("resume", path, "must name the directory of a run, as resume=saves/...")
    if path.startswith(("'", '"')):
        path = str(parse_overrides(given[-1:])[0].value())
    return path, [each for each in overrides if each not in given]


def resume(given: str, overrides: Sequence[str]) -> Path:
    """Go on with the run in the directory `given`, with what may be changed, as `go_on`; its path."""
    directory = user_path(given, "resume")
    changes = {override.key_or_group: override.value() for override in parse_overrides(overrides)}
    with resumable(directory):
        go_on(directory, changes)
    return directory


def compose_single(overrides: Sequence[str]) -> tuple[Path, RunConfig]:
    """The directory and the configuration that overrides ask for; `UserError` where something cannot be."""
    with composing():
        config = compose_config(overrides)
        check_hydra(config)
        directory, settings = hydra_path(config, "hydra.run.dir"), plain(config)
    if config.hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode", "MULTIRUN", "must be RUN: a sweep needs the flag -m")
    check_beside(settings, list(config.hydra.overrides.task))
    asked = RunConfig.parse(settings, choices_of(config))
    if asked.sweep and asked.sweep.skip_finished:
        raise UserError("sweep.skip_finished", True, "must be false without -m: it is for sweeps")
    return directory.absolute(), asked


def single(directory: Path, config: RunConfig) -> None:
    """Do what `compose_single` composed; raises as `Task.run`."""
    with resumable(directory):
        perform(directory, config)
