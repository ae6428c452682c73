"""Does what a configuration asks for, or goes on with what was begun."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsplit.config.checks import check
from fedsplit.config.task_traits import task_traits
from fedsplit.files.paths import shown


def perform(directory: Path, config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Do what the task says.

    Args:
        directory: where results go.
        config: composed and resolved.
        choices: what was chosen of each group; those of Hydra's own are left out.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    check(config)
    if config["progress"] and sys.stdout.isatty():
        print(announced(directory, config, choices), flush=True)
    from fedsplit.config.instantiate import make  # noqa: PLC0415  (heavy: only after the check)
    from fedsplit.tasks.task import Task  # noqa: PLC0415

    own = {
        key: value for key, value in config.items() if key != "sweep"
    }  # where the job stands is no part of it
    own["choices"] = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    make(Task, own, "task").run(own, directory)  # type: ignore[type-abstract]


def announced(directory: Path, config: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """What is about to be done, and where its results go; imports take seconds before more is known."""
    task, run = task_traits(config), config.get("run")
    if task.counts_rounds or run is None:
        subject = task.announces.format(**choices)
    else:
        subject = f"{choices['task']}: {run}"
    if task.models_of_run == "needed":
        return f"{subject}, to {Path(str(run), choices['task'])}"
    return f"{subject}, to {shown(directory)}" if task.swept else subject


def go_on(directory: Path, changes: Mapping[str, Any]) -> None:
    """Go on with the run in a directory from its last checkpoint, or from its start where there is none.

    Args:
        directory: of the run.
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
