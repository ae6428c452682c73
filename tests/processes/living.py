"""Waiting for what processes do, and who of them lives; imports little, as fresh processes import it."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait; a condition that never comes is a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that these did."""
    found = {pid}
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(words[1])
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: Sequence[int] | set[int]) -> set[int]:
    """Those that still run; one that only waits to be collected does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.add(pid)
    return running - {os.getpid()}
