"""The jobs of a sweep as a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.table import Table
from rich.text import Text

from fedsplit.sweeps.status import Progress

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
        state: how it stands; skipped is what was finished before the sweep began.
        rounds: that it is to run at most; None of what trains nothing.
        progress: how far it is; None before its first round.
        remark: its directory, or why it failed.
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
            *numbers(row),
            Text(row.remark),
        )
    return made


def numbers(row: JobRow) -> tuple[str, str, str, str]:
    """Rounds, accuracy, MB and seconds of a job, as they are shown."""
    progress = row.progress
    if progress is None:
        return "" if row.rounds is None else f"0/{row.rounds}", "", "", ""
    accuracy = "" if progress.accuracy is None else f"{progress.accuracy:.4f}"
    rounds = "" if row.rounds is None else f"{progress.rounds}/{row.rounds}"
    return rounds, accuracy, f"{progress.load / 1e6:,.2f}", f"{progress.seconds:,.1f}"


def counted(rows: Sequence[JobRow]) -> str:
    """How many jobs stand how."""
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in _COLOURS if counts[state])


def that_fit(rows: Sequence[JobRow], height: int) -> list[JobRow]:
    """As many rows as fit into so many lines: those at work and those that failed first, in their order."""
    urgent: tuple[Shown, ...] = ("running", "failed", "waiting", "done", "skipped")
    chosen = sorted(rows, key=lambda row: (urgent.index(row.state), row.number))[: max(height, 1)]
    return sorted(chosen, key=lambda row: row.number)
