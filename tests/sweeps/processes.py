"""Sweeps as real processes, and what they leave behind."""

import csv
import subprocess
import sys
from pathlib import Path

from tests.command_line import command_line
from tests.conftest import TINY


def command(root: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(root / "main.py"), "-m", *TINY, *overrides]


def sweep(cwd: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """A sweep of tiny jobs, one after the other as the cores are the tests', to its end."""
    return command_line("-m", *TINY, "hydra.launcher.n_jobs=1", *overrides, cwd=cwd)


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
