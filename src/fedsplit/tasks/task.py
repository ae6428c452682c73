"""Tasks, and how the one of a configuration is done, or gone on with."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from fedsplit.config.run_config import RunConfig
from fedsplit.config.traits import traits_of
from fedsplit.files.paths import display_path
from fedsplit.machine.imports import without_garbage_collection


class Task(ABC):
    """One thing to do with a configuration.

    What a class says of itself is read from its source before anything heavy is imported: as literals.
    """

    beside: ClassVar[tuple[str, ...] | None] = None
    """Keys, and all below them, that may be given beside it; None allows all. Where it may take a run, only
    with `run=` others may not: they are the run's."""
    models_of_run: ClassVar[Literal["refused", "taken", "needed"]] = "taken"
    """Use of `run=`, which names a run whose trained models are loaded: refused, allowed or required."""
    swept: ClassVar[bool] = True
    """True if it writes a `results.json` into its directory, which sweeps collect."""
    gathered: ClassVar[str | None] = None
    """CSV file that it writes last of all, below its directory, and whose rows a sweep gathers; None where
    `results.json` is the last."""
    joins: ClassVar[bool] = False
    """True if it takes part in a run of another machine, where the data set is chosen."""
    deploys: ClassVar[bool] = False
    """True if `precision` names one or more precisions of deployed client models, not that of training."""
    counts_rounds: ClassVar[bool] = False
    """True if it trains for `rounds` rounds."""
    announces: ClassVar[str] = "{task}: {model} on {dataset}"
    """Headline in a terminal at its start: names of groups in braces stand for their choices."""

    @abstractmethod
    def run(self, config: RunConfig, directory: Path) -> None:
        """Do it.

        Args:
            directory: directory of results, if there are any; made only once nothing can be wrong any more.

        Raises:
            UserError: something asked for cannot be.
            RunFailed: the run could not be carried to its end.
        """

    def follow(self, config: RunConfig, directory: Path) -> None:
        """Do what follows the rounds of a run that was gone on with to its end; nothing by default.

        Args:
            config: configuration of the run, as it was gone on with.
            directory: directory of the run.

        Raises:
            UserError: something asked for cannot be.
        """
        return

    def show_gathered(self, rows: Sequence[Mapping[str, str]], directory: Path) -> None:
        """Print, or draw, the rows that a sweep gathered of its jobs; nothing by default.

        Args:
            rows: cells by column, those of the job's own overrides first.
            directory: directory of the sweep, where figures go.
        """
        return


def perform(directory: Path, config: RunConfig) -> None:
    """Do what the task says; raises as `Task.run`."""
    if config.recording.progress and sys.stdout.isatty():
        print(announcement(directory, config), flush=True)
    from fedsplit.tasks.task import Task  # noqa: PLC0415

    own = replace(config, sweep=None)  # where the job stands is no part of it
    with without_garbage_collection():
        task = own.task.build(Task)  # imports torch
    task.run(own, directory)


def announcement(directory: Path, config: RunConfig) -> str:
    """Announcement of a task and of where its results go; imports take seconds before more is known."""
    task, run, choices = traits_of(config.task.target), config.origin.run, config.choices
    if task.counts_rounds or run is None:
        subject = task.announces.format(**choices)
    else:
        subject = f"{choices['task']}: {run}"
    if task.models_of_run == "needed":
        return f"{subject}, to {Path(str(run), choices['task'] or '')}"
    return f"{subject}, to {display_path(directory)}" if task.swept else subject


def go_on(directory: Path, changes: Mapping[str, object]) -> None:
    """Go on with the run in a directory from its last checkpoint, or from its start where there is none.

    Args:
        changes: new values, by key.

    Raises:
        UserError: there is no run, another process is at work in it, it is damaged, or something may not be
            given anew.
        RunFailed: the run could not be carried to its end.
    """
    if sys.stdout.isatty() and changes.get("progress", True) and (directory / "config.yaml").is_file():
        doing = "reading" if (directory / "results.json").is_file() else "going on with"
        print(f"{doing} {display_path(directory)}", flush=True)
    with without_garbage_collection():
        from fedsplit.training.resume import resume  # noqa: PLC0415  (heavy: only after the line above)

    config = resume(directory, changes)
    config.task.build(Task).follow(config, directory)
