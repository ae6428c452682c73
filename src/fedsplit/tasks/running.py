"""Does what a configuration asks for, or goes on with what was begun."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedsplit.config.run_config import RunConfig
from fedsplit.config.task_traits import traits_of
from fedsplit.files.paths import shown


def perform(directory: Path, config: RunConfig) -> None:
    """Do what the task says.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    if config.recording.progress and sys.stdout.isatty():
        print(announced(directory, config), flush=True)
    from fedsplit.tasks.task import Task  # noqa: PLC0415

    own = replace(config, sweep=None)  # where the job stands is no part of it
    own.task.build(Task).run(own, directory)


def announced(directory: Path, config: RunConfig) -> str:
    """What is about to be done, and where its results go; imports take seconds before more is known."""
    task, run, choices = traits_of(config.task.target), config.origin.run, config.choices
    if task.counts_rounds or run is None:
        subject = task.announces.format(**choices)
    else:
        subject = f"{choices['task']}: {run}"
    if task.models_of_run == "needed":
        return f"{subject}, to {Path(str(run), choices['task'] or '')}"
    return f"{subject}, to {shown(directory)}" if task.swept else subject


def go_on(directory: Path, changes: Mapping[str, object]) -> None:
    """Go on with the run in a directory from its last checkpoint, or from its start where there is none.

    Args:
        changes: what is given anew, by key.

    Raises:
        UserError: there is no run, another process is at work in it, it is damaged, or something may not be
            given anew.
        RunFailed: the run could not be carried to its end.
    """
    if sys.stdout.isatty() and changes.get("progress", True) and (directory / "config.yaml").is_file():
        print(f"going on with {shown(directory)}", flush=True)
    from fedsplit.training.resume import resume  # noqa: PLC0415  (heavy: only after the line above)

    resume(directory, changes)
