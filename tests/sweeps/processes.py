"""Sweeps as real processes, and what they leave behind."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.command_line import command_line
from tests.conftest import TINY


def command(root: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(root / "main.py"), "-m", *TINY, *overrides]


def sweep(cwd: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """A sweep of tiny jobs, one after the other as the cores are the tests', to its end."""
    return command_line("-m", *TINY, "hydra.launcher.n_jobs=1", *overrides, cwd=cwd)


def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait; a condition that never comes is a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def results(directory: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """What a run computed: the bytes of its models, and its metrics without seconds."""
    models = {path.name: path.read_bytes() for path in sorted((directory / "model").iterdir())}
    with (directory / "metrics.csv").open(newline="") as file:
        rows = [
            {column: cell for column, cell in row.items() if not column.startswith("seconds.")}
            for row in csv.DictReader(file)
        ]
    return models, rows


def table(stdout: str) -> list[list[str]]:
    """The cells of the table of jobs, a list a job."""
    rows = [line.strip("│ ").split("│") for line in stdout.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


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
