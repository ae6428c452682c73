"""Cores of this machine, and how much computes on them at a time."""

import os


def jobs_at_once(threads: int) -> int:
    """Number of jobs of so many CPU threads each that this process's cores hold; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)
