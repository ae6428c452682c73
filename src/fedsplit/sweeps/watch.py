"""Follows the jobs of a sweep by what they write, tells what happens, and draws a table while it goes on."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.live import Live

from fedsplit.reports.shown_table import print_table
from fedsplit.sweeps.record import Job, differing
from fedsplit.sweeps.status import STATUSES, is_finished, progress_of, told
from fedsplit.sweeps.table import JobRow, Shown, counted, narrow, numbers, table, that_fit

_INTERVAL_S = 0.2
_OPEN: tuple[Shown, ...] = ("waiting", "running")


class Watch:
    """The jobs of a sweep, as they stand.

    Args:
        rounds: that each is to run at most; None of one that trains nothing.
        skipped: numbers of those that are not run, for they are finished.
        live: whether to draw a table where standard output is a terminal; else a line tells when a job begins
            and when it ends.
    """

    def __init__(
        self,
        directory: Path,
        jobs: Sequence[Job],
        rounds: Sequence[int | None],
        skipped: set[int],
        live: bool,
    ) -> None:
        self._statuses = directory / STATUSES
        self._directories = {job.number: directory / job.directory for job in jobs}
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
        """By number."""
        return [row for _, row in sorted(self._rows.items())]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While jobs run."""
        over = threading.Event()
        with self._drawn() as drawn:
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
        """Print the table of jobs."""
        print_table(table(self.rows), self._console)

    def failed(self) -> int:
        """How many jobs failed."""
        return sum(row.state == "failed" for row in self.rows)

    @contextmanager
    def _drawn(self) -> Iterator[Live | None]:
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
                fitting = that_fit(self.rows, self._console.height - 7)
                drawn.update(narrow(fitting, counted(self.rows), self._console.width), refresh=True)

    def _look(self) -> None:
        for row in self.rows:
            if row.state not in _OPEN or (status := told(self._statuses, row.number)) is None:
                continue
            now = replace(row, state="running", progress=progress_of(self._directories[row.number]))
            if row.state == "waiting" and not self._live:
                print(f"{_named(row)} starts", flush=True)
            self._rows[row.number] = now
            if status.state == "done" and is_finished(self._directories[row.number]):
                self._end(now, "done", now.remark)
            elif status.state != "running":
                self._end(now, "failed", status.error or "it left no results.json")

    def _end(self, row: JobRow, state: Shown, remark: str) -> None:
        self._rows[row.number] = replace(row, state=state, remark=remark)
        if state == "failed":
            print(f"error: {_named(row)}: {remark}", file=sys.stderr, flush=True)
        elif not self._live:
            rounds, accuracy, load, seconds = numbers(row)
            words = f"accuracy {accuracy}, {load} MB, {seconds} s"
            print(f"{_named(row)} done: {f'{rounds} rounds, ' if rounds else ''}{words}", flush=True)


def _named(row: JobRow) -> str:
    return f"job {row.number}" + (f" ({row.overrides})" if row.overrides else "")
