"""A job of a sweep, in a process that was forked for it: what kills a job kills only it."""

# ruff: noqa: PLC0415  (the process of a sweep imports none of this, what forks does it once)

from pathlib import Path

from fedsplit.config.run_config import RunConfig
from fedsplit.sweeps.status import lock_job


def import_what_jobs_need() -> None:
    """Import the libraries that take seconds."""
    import fedsplit.data.sources.digits
    import fedsplit.tasks.train  # noqa: F401


def run_job(config: RunConfig, directory: Path, place: int, statuses: Path) -> None:
    """Run a job to its end.

    Args:
        directory: directory of the run; one that is there already is gone on with.
        place: place of the job among those launched together, which decides on its GPU.
        statuses: folder for what jobs tell.
    """
    import torch

    from fedsplit.tasks.task import go_on, perform

    asked = config.computation.device
    device = device_of(asked, place, torch.cuda.device_count())  # only now: CUDA outlives no fork
    with lock_job(statuses):
        if (directory / "config.yaml").is_file():
            trust = {"trust": config.origin.trust}
            go_on(directory, trust if device == asked else {**trust, "device": device})
        else:
            perform(directory, config.with_changes({"device": device}))


def device_of(asked: str, place: int, gpus: int) -> str:
    """The device of a job.

    Args:
        asked: key `device` of its configuration.
        place: place of the job among those that are launched together, from 0.

    Returns:
        With several GPUs one after the other, where no certain one is asked for; else the one asked for.
    """
    return f"cuda:{place % gpus}" if gpus > 1 and asked in ("auto", "cuda") else asked
