"""Work that a launcher does for each job, on this machine or on another."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fedsplit.config.compose import names_of_choices, plain
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.processes.child import end_with_parent
from fedsplit.processes.forker import Forker
from fedsplit.sweeps.forked_job import import_what_jobs_need, run_job
from fedsplit.sweeps.status import Status, log_of, write_status


@dataclass(frozen=True)
class LaunchedJobs:
    """The jobs that are launched together; called for each of them, in whatever process its launcher chose.

    Args:
        statuses: folder for what they tell.
        numbers: numbers of the jobs, in the order in which they are launched.
        command: process that the command was given to.
        counts: environment variables `..._NUM_THREADS` that it has. Launchers set others; a run by itself
            has none but these.
    """

    statuses: Path
    numbers: tuple[int, ...]
    command: int
    counts: tuple[str, ...]

    def __call__(self, config: DictConfig) -> None:
        """Run a job to its end, and tell how it ended."""
        if os.getppid() == self.command:  # a worker of joblib's pool
            _serve_the_command()
        own = HydraConfig.get()
        number, directory = self.numbers[own.job.num], Path(own.runtime.output_dir)
        write_status(self.statuses, number, Status("running"))
        try:
            names = names_of_choices(config, own.runtime.choices).items()
            chosen = {group: name for group, name in names if name and not group.startswith("hydra/")}
            log = log_of(self.statuses, number).absolute()
            run = partial(
                run_job,
                RunConfig.parse(plain(config), chosen),
                directory,
                own.job.num,
                log.parent,
            )
            error = _forker(self._environment()).start(run, log).end.result().error
        except UserError as failed:
            error = str(failed)
        with suppress(OSError):
            directory.rmdir()  # only where nothing was written
        write_status(self.statuses, number, Status("failed", error) if error else Status("done"))

    def _environment(self) -> Mapping[str, str]:
        return {
            name: value
            for name, value in os.environ.items()
            if name in self.counts or not name.endswith("_NUM_THREADS")
        }


def thread_counts() -> tuple[str, ...]:
    """Names of the environment variables that say how many threads libraries start."""
    return tuple(name for name in os.environ if name.endswith("_NUM_THREADS"))


_beside: list[Forker] = []
"""The forker of this process's jobs, kept from job to job; empty until the first job."""


def _forker(environment: Mapping[str, str]) -> Forker:
    if _beside and not _beside[0].alive:
        end()
    if not _beside:
        _beside.append(Forker(import_what_jobs_need, "runs jobs", environment))
    return _beside[0]


def end() -> None:
    """End the process in which this one's jobs run."""
    while _beside:
        _beside.pop().close()


_serving: list[bool] = []


def _serve_the_command() -> None:
    """Leave Ctrl-C to the command, and end with it."""
    if not _serving:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent()
        _serving.append(True)
