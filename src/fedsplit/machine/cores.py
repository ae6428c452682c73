"""What the machine has for the jobs of a sweep: cores for some at a time, GPUs in turn."""

import os


def jobs_at_once(threads: int) -> int:
    """How many jobs of so many CPU threads each the cores hold that this process may use; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def device_of(asked: str, place: int, gpus: int) -> str:
    """The device of a job.

    Args:
        asked: key `device` of its configuration.
        place: of the job among those that are launched together, from 0.
        gpus: how many there are where it runs.

    Returns:
        With several GPUs one after the other, where no certain one is asked for; else what is asked for.
    """
    return f"cuda:{place % gpus}" if gpus > 1 and asked in ("auto", "cuda") else asked
