"""Follows the jobs of a sweep by what they write, tells what happens, and draws a table while it goes on."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedsplit.reports.shown_table import fits, print_table
from fedsplit.sweeps.record import Job, differing
from fedsplit.sweeps.status import STATUSES, Progress, is_finished, progress_of, read_status

Shown: TypeAlias = Literal["waiting", "running", "done", "failed", "skipped"]
_COLOURS: dict[Shown, str] = {
    "waiting": "dim",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "skipped": "blue",
}
_CUT = ("overrides", "directory or error")
"""Columns that may be cut short while jobs run; the table at the end has them whole."""
_WIDE = 120
"""Columns of a terminal from which on a line also holds a job's directory."""


@dataclass(frozen=True)
class JobRow:
    """A job as it is shown.

    Args:
        overrides: those in which jobs differ.
        state: state of the job; skipped is what was finished before the sweep began.
        rounds: most rounds of the job; None where it trains nothing.
        progress: progress of the job; None before its first round.
        remark: directory of the job, or why it failed.
    """

    number: int
    overrides: str
    state: Shown
    rounds: int | None
    progress: Progress | None
    remark: str


def narrow(rows: Sequence[JobRow], caption: str, width: int) -> Table:
    """A line a row, for a terminal of so many columns: overrides are cut, directories may be left out."""
    made = table(rows, caption, one_line=True)
    if width < _WIDE:
        made.columns.pop()
    cut = [column for column in made.columns if column.header in _CUT]
    whole = [column for column in made.columns if column not in cut]
    taken = sum(max(len(str(each)) for each in (column.header, *column.cells)) for column in whole)
    for column in cut:  # beside each column there are a line and two spaces
        column.max_width = max(1, (width - taken - 3 * len(made.columns) - 1) // len(cut))
    return made


def table(rows: Sequence[JobRow], caption: str | None = None, *, one_line: bool = False) -> Table:
    """The rows, under what there is to know of each; with `one_line`, what is long is cut."""
    made = Table(caption=caption, caption_justify="left")
    overflow: Literal["ellipsis", "fold"] = "ellipsis" if one_line else "fold"
    for name in ("job", "overrides", "state", "rounds", "accuracy", "MB", "seconds", "directory or error"):
        right = name in ("job", "rounds", "accuracy", "MB", "seconds")
        made.add_column(
            name, justify="right" if right else "left", no_wrap=right or one_line, overflow=overflow
        )
    for row in rows:
        made.add_row(
            str(row.number),
            Text(row.overrides),
            Text(row.state, style=_COLOURS[row.state]),
            *progress_cells(row),
            Text(row.remark),
        )
    return made


def progress_cells(row: JobRow) -> tuple[str, str, str, str]:
    """Cells of the table with rounds, accuracy, MB and seconds of a job."""
    progress = row.progress
    if progress is None:
        return "" if row.rounds is None else f"0/{row.rounds}", "", "", ""
    accuracy = "" if progress.accuracy is None else f"{progress.accuracy:.4f}"
    rounds = "" if row.rounds is None else f"{progress.rounds}/{row.rounds}"
    return rounds, accuracy, f"{progress.load / 1e6:,.2f}", f"{progress.seconds:,.1f}"


def count_states(rows: Sequence[JobRow]) -> str:
    """Number of jobs in each state, e.g. `3 running, 2 done`."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in _COLOURS if counts[state])


def rows_that_fit(rows: Sequence[JobRow], height: int) -> list[JobRow]:
    """Rows that fit into `height` lines: those at work and those that failed first, in their order."""
    urgent: tuple[Shown, ...] = ("running", "failed", "waiting", "done", "skipped")
    chosen = sorted(rows, key=lambda row: (urgent.index(row.state), row.number))[: max(height, 1)]
    return sorted(chosen, key=lambda row: row.number)


_INTERVAL_S = 0.2
_OPEN: tuple[Shown, ...] = ("waiting", "running")


class Watch:
    """The jobs of a sweep, as they stand.

    Args:
        rounds: most rounds of each job; None for one that trains nothing.
        last: file that each writes last of all.
        skipped: numbers of those that are not run, for they are finished.
        live: True to draw a table where standard output is a terminal; else a line tells when a job begins
            and when it ends.
    """

    def __init__(
        self,
        directory: Path,
        jobs: Sequence[Job],
        rounds: Sequence[int | None],
        last: Sequence[str],
        *,
        skipped: set[int],
        live: bool,
    ) -> None:
        self._statuses = directory / STATUSES
        self._directories = {job.number: directory / job.directory for job in jobs}
        self._last = dict(zip(self._directories, last, strict=True))
        self._console = Console()
        self._live = live and self._console.is_terminal
        self._rows = {
            job.number: JobRow(
                number=job.number,
                overrides=" ".join(overrides),
                state="skipped" if job.number in skipped else "waiting",
                rounds=most,
                progress=progress_of(directory / job.directory),
                remark=str(directory / job.directory),
            )
            for job, most, overrides in zip(jobs, rounds, differing(jobs), strict=True)
        }

    @property
    def rows(self) -> list[JobRow]:
        """Rows of all jobs by number."""
        return [row for _, row in sorted(self._rows.items())]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the jobs while they run."""
        over = threading.Event()
        with self._draw() as drawn:
            thread = threading.Thread(target=self._follow, args=(over, drawn), daemon=True)
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
                self._look()

    def fail_unfinished(self, why: str) -> None:
        """Nobody is at work any more: what has not ended, failed."""
        for row in self.rows:
            if row.state in _OPEN:
                self._end(row, "failed", why if row.state == "running" else f"not run: {why}")

    def show(self) -> None:
        """Print the table of jobs; a terminal has their directories where there is room, or one failed."""
        shown = table(self.rows)
        if not self.failed_count() and not fits(shown, self._console):
            shown.columns.pop()
        print_table(shown, self._console)

    def failed_count(self) -> int:
        """Number of jobs that failed."""
        return sum(row.state == "failed" for row in self.rows)

    @contextmanager
    def _draw(self) -> Iterator[Live | None]:
        if not self._live:
            yield None
            return
        same = sys.stderr.isatty()  # else errors go where they were sent
        with Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=same) as live:
            yield live

    def _follow(self, over: threading.Event, drawn: Live | None) -> None:
        while not over.wait(_INTERVAL_S):
            self._look()
            if drawn is not None:
                fitting = rows_that_fit(self.rows, self._console.height - 7)
                drawn.update(narrow(fitting, count_states(self.rows), self._console.width), refresh=True)

    def _look(self) -> None:
        for row in self.rows:
            if row.state not in _OPEN or (status := read_status(self._statuses, row.number)) is None:
                continue
            now = replace(row, state="running", progress=progress_of(self._directories[row.number]))
            if row.state == "waiting" and not self._live:
                print(f"{_name(row)} starts", flush=True)
            self._rows[row.number] = now
            if status.state == "done" and self._is_finished(row):
                self._end(now, "done", now.remark)
            elif status.state != "running":
                self._end(now, "failed", status.error or f"it left no {self._last[row.number]}")

    def _is_finished(self, row: JobRow) -> bool:
        return is_finished(self._directories[row.number], self._last[row.number])

    def _end(self, row: JobRow, state: Shown, remark: str) -> None:
        self._rows[row.number] = replace(row, state=state, remark=remark)
        if state == "failed":
            print(f"error: {_name(row)}: {remark}", file=sys.stderr, flush=True)
        elif not self._live:
            rounds, accuracy, load, seconds = progress_cells(row)
            words = f"accuracy {accuracy}, {load} MB, {seconds} s"
            print(f"{_name(row)} done: {f'{rounds} rounds, ' if rounds else ''}{words}", flush=True)


def _name(row: JobRow) -> str:
    return f"job {row.number}" + (f" ({row.overrides})" if row.overrides else "")
