"""A sweep, from its overrides to its table."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fedsplit.config.commands import command
from fedsplit.config.compose import check_hydra, choices_of, compose_config, composing, hydra_path, plain
from fedsplit.config.overrides import check_beside, quote
from fedsplit.config.run_config import RunConfig
from fedsplit.config.traits import traits_of
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files.paths import display_path, new_directory
from fedsplit.recording.config_file import CONFIG_FILE, OtherFormat, read_config
from fedsplit.sweeps import record
from fedsplit.sweeps.gathering import gather
from fedsplit.sweeps.grid import jobs
from fedsplit.sweeps.job import LaunchedJobs, thread_counts
from fedsplit.sweeps.launch import check_installed, check_launcher, launch
from fedsplit.sweeps.record import RECORD, Job
from fedsplit.sweeps.status import RESULTS, STATUSES, is_finished, lock_sweep
from fedsplit.sweeps.watch import Watch
from fedsplit.tasks.task import Task


@dataclass(frozen=True)
class RequestedJob:
    """Job that a command asks for: its overrides, its configuration, and `settings`, all values resolved."""

    overrides: list[str]
    config: DictConfig
    settings: dict[str, object]
    run: RunConfig

    @property
    def rounds(self) -> int | None:
        """Most rounds that the job may run; None where it trains nothing."""
        return self.run.budget.rounds if traits_of(self.run.task.target).counts_rounds else None

    @property
    def gathered_file(self) -> str | None:
        """CSV file of its directory whose rows the sweep gathers; None where there is none."""
        return traits_of(self.run.task.target).gathered

    @property
    def last_file(self) -> str:
        """File that the job writes last of all, below its directory."""
        return self.gathered_file or RESULTS

    @property
    def own_overrides(self) -> list[str]:
        """Overrides of the job itself, neither Hydra's nor the sweep's."""
        others = ("hydra.", "hydra/", "sweep.")
        return [each for each in self.overrides if not each.lstrip("+~").startswith(others)]


def sweep(overrides: Sequence[str]) -> None:
    """Run every combination, in processes side by side, once the keys of all are checked.

    Raises:
        UserError: a job cannot be as it is asked for; none has begun.
        RunFailed: a job did not end well; each has told its own error.
    """
    check_installed(overrides)
    with composing():
        asked = [_check(each) for each in jobs(overrides)]
        check_launcher(asked[0].config.hydra.launcher)
        _check_places(asked)
        _check_clusters(asked)
        directory = _directory(asked)
        with lock_sweep(directory):
            recorded = record.read(directory)
            taken = _match(asked, recorded)
            _refuse_other_formats([directory / job.directory for job in taken])
            known = {job.number for job in recorded}
            new = [job for job in taken if job.number not in known]
            record.write(directory, overrides, [*recorded, *new])
            finished = {
                job.number
                for job, each in zip(taken, asked, strict=True)
                if is_finished(directory / job.directory, each.last_file)
            }
            watch = Watch(
                directory=display_path(directory),
                jobs=taken,
                rounds=[each.rounds for each in asked],
                last=[each.last_file for each in asked],
                skipped=finished,
                live=asked[0].run.recording.progress,
            )
            to_run = [
                (job, each) for job, each in zip(taken, asked, strict=True) if job.number not in finished
            ]
            if to_run:
                print(f"{len(to_run)} of {len(asked)} jobs to run, to {display_path(directory)}", flush=True)
                with watch.watching(), _resumable(directory, overrides):
                    ended = _run(directory, to_run)
                watch.fail_unfinished(ended)
    watch.show()
    _gather(directory, taken, asked)
    if any(each.rounds is not None for each in asked) and watch.failed_count() < len(asked):
        drawn = command(str(display_path(directory)), "--x", "load", "--table", name="fedsplit-plot")
        print(f"draw its runs, with a table  {drawn}")
    print(display_path(directory))
    if failed := watch.failed_count():
        raise RunFailed(f"{failed} of {len(asked)} jobs failed; the others are in {display_path(directory)}")


@contextmanager
def _resumable(directory: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Let Ctrl-C say how to go on with the jobs that are left."""
    try:
        yield
    except KeyboardInterrupt as error:
        ours = ("hydra.sweep.dir=", "sweep.skip_finished=")
        asked = [each for each in overrides if not each.startswith(ours)]
        again = (f"hydra.sweep.dir={quote(display_path(directory))}", "sweep.skip_finished=true")
        raise KeyboardInterrupt(command("-m", *asked, *again)) from error


def _check(overrides: list[str]) -> RequestedJob:
    config = compose_config(overrides)
    check_hydra(config)
    settings = plain(config)
    run = RunConfig.parse(settings, choices_of(config))
    task = config.hydra.runtime.choices.task
    if not traits_of(run.task.target).swept:
        raise UserError("task", task, "must not be swept: it leaves no run behind; run it alone, without -m")
    check_beside(settings, list(config.hydra.overrides.task))
    return RequestedJob(overrides, config, settings, run)


def _check_places(asked: Sequence[RequestedJob]) -> None:
    places = set()
    for number, each in enumerate(asked):
        each.config.hydra.job.num = number
        places.add(place := hydra_path(each.config, "hydra.sweep.subdir"))
        if place.is_absolute() or ".." in place.parts:
            raise UserError("hydra.sweep.subdir", place, "must be below the sweep's directory")
        if len(places) <= number:
            raise UserError(
                "hydra.sweep.subdir", place, "must be another one for each job, as ${hydra.job.num}"
            )


def _check_clusters(asked: Sequence[RequestedJob]) -> None:
    """Raise where jobs side by side would each start workers on all of this machine."""
    at_once = asked[0].config.hydra.launcher.get("n_jobs", 1)  # other launchers have none
    for each in asked:
        if at_once != 1 and each.run.cluster.arguments.get("address", "") is None:
            message = (
                f"must be 1 with cluster={each.run.choice('cluster')}: a job takes all cores of this machine"
            )
            raise UserError(
                "hydra.launcher.n_jobs", at_once, f"{message}; or cluster.address names a cluster"
            )


def _gather(directory: Path, jobs: Sequence[Job], asked: Sequence[RequestedJob]) -> None:
    """Gather rows of finished jobs into one file for each table that tasks leave, and show them."""
    for name in dict.fromkeys(each.gathered_file for each in asked if each.gathered_file):
        with_table = [job for job, each in zip(jobs, asked, strict=True) if each.gathered_file == name]
        if rows := gather(directory, with_table, name):
            task = next(each.run.task for each in asked if each.gathered_file == name)
            task.build(Task).show_gathered(rows, directory)


def _directory(asked: Sequence[RequestedJob]) -> Path:
    """Directory of the sweep, which is made."""
    first = asked[0]
    directory = hydra_path(first.config, "hydra.sweep.dir")
    if first.run.sweep and first.run.sweep.skip_finished:
        unresolved = str(OmegaConf.to_container(first.config.hydra.sweep, resolve=False)["dir"])  # type: ignore[index, call-overload]
        earlier: Path | None = directory if (directory / RECORD).is_file() else None
        if "${" in unresolved:
            earlier = record.newest(unresolved, {record.fingerprint(each.settings) for each in asked})
        if earlier is not None:
            print(f"going on with the sweep in {display_path(earlier)}", flush=True)
            return earlier
    if (directory / RECORD).is_file():
        raise UserError(
            "hydra.sweep.dir", directory, "holds a sweep; sweep.skip_finished=true goes on with it"
        )
    new_directory(directory, "hydra.sweep.dir")
    return directory


def _match(asked: Sequence[RequestedJob], recorded: Sequence[Job]) -> list[Job]:
    """The job for each that is asked for: a recorded one of the same configuration, or a new one."""
    unused = list(recorded)
    found = []
    number = max((job.number for job in recorded), default=-1) + 1
    for each in asked:
        configuration = record.fingerprint(each.settings)
        job = next((job for job in unused if job.configuration == configuration), None)
        if job is None:
            each.config.hydra.job.num = number
            job = Job(
                number, str(hydra_path(each.config, "hydra.sweep.subdir")), each.own_overrides, configuration
            )
            number += 1
        else:
            unused.remove(job)
            job = replace(job, overrides=each.own_overrides)  # it may be asked for in other words
        found.append(job)
    return found


def _refuse_other_formats(runs: Sequence[Path]) -> None:
    """Raise where a run was left by another version, be it finished: nothing could read both."""
    for run in runs:
        if (run / CONFIG_FILE).is_file():
            try:
                read_config(run, "hydra.sweep.dir")
            except OtherFormat:
                raise
            except UserError:  # damaged: a job that fails, and no other with it
                continue


def _run(directory: Path, to_run: Sequence[tuple[Job, RequestedJob]]) -> str:
    """Run jobs to their ends; returns what there is to say of those that did not tell theirs."""
    statuses = directory.absolute() / STATUSES
    for job, _ in to_run:
        (statuses / f"{job.number}.json").unlink(missing_ok=True)
    first = to_run[0][1]
    most_threads = max(asked.run.computation.threads for _, asked in to_run)
    others = [each for each in first.overrides if not each.startswith("hydra.sweep.")]
    place = f"hydra.sweep.dir={quote(directory)}"
    config = compose_config([*others, f"threads={most_threads}", place])
    function = LaunchedJobs(statuses, tuple(job.number for job, _ in to_run), os.getpid(), thread_counts())
    overrides = [
        [*asked.own_overrides, f"hydra.sweep.subdir={quote(job.directory)}"] for job, asked in to_run
    ]
    try:
        launch(config, function, overrides)
    except Exception as error:  # a launcher's own way to fail: the jobs that ended have told so themselves
        return first_line(error)
    return "its launcher has lost it"
