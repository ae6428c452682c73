"""A table: numbers over seeds, and the rules by which they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import fmean, stdev

from fedsplit.reports.runs import Run
from fedsplit.reports.tables.measures import Measure


@dataclass(frozen=True)
class Estimate:
    """A number over seeds.

    Args:
        values: one for each seed that has it.
        seeds: all of them.
    """

    values: tuple[float, ...]
    seeds: int

    @property
    def mean(self) -> float | None:
        """Of the seeds that have it; None where none has."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample, with n - 1; None of fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Args:
        algorithm: its canonical name.
        setting: what else tells the row from the others; may be empty.
    """

    algorithm: str
    setting: str
    seeds: tuple[int, ...]
    cells: tuple[Estimate, ...]


@dataclass(frozen=True)
class Shown:
    """A cell as people read it.

    Args:
        mean: `-` where no seed has it.
        deviation: None of a single seed, and where all have exactly the same.
        reached: `k of n seeds` where only some have it.
    """

    mean: str
    deviation: str | None = None
    reached: str | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of numbers, kept as numbers.

    Args:
        name: of its files, without the ending.
        columns: each with its `decimals`.
    """

    name: str
    title: str
    columns: tuple[Measure, ...]
    rows: tuple[Row, ...]
    runs: Sequence[Run]

    def names(self) -> list[str]:
        """The titles of what names rows."""
        settings = any(row.setting for row in self.rows)
        several = any(len(row.seeds) > 1 for row in self.rows)
        return ["Algorithm", *(["Setting"] if settings else []), *(["Seeds"] if several else [])]

    def note(self) -> str:
        """How the cells are to be read."""
        cells = [cell for _, row in self.lines() for cell in row]
        said = {
            "Mean ± standard deviation over seeds.": any(cell.deviation for cell in cells),
            "The best of a column is bold.": any(cell.best for cell in cells),
            "-: not reached, or not measured.": any(cell.mean == "-" for cell in cells),
            "Runs that have not ended count with what they have.": any(
                run.results is None for run in self.runs
            ),
            "MB are millions of bytes.": any("(MB)" in column.title for column in self.columns),
        }
        return " ".join(text for text, holds in said.items() if holds)

    def lines(self) -> list[tuple[dict[str, str], list[Shown]]]:
        """What names each row, and its cells as people read them.

        `Setting` is there where a row has one, and `Seeds` where a row has several. The best of a column are
        the cells that read the same as its best number.
        """
        named = [
            {"Algorithm": row.algorithm, "Setting": row.setting, "Seeds": str(len(row.seeds))}
            for row in self.rows
        ]
        by_column = [self._shown(index) for index in range(len(self.columns))]
        return [
            ({title: each[title] for title in self.names()}, [column[place] for column in by_column])
            for place, each in enumerate(named)
        ]

    def _shown(self, index: int) -> list[Shown]:
        column = self.columns[index]
        cells = [row.cells[index] for row in self.rows]
        best = _best(column, cells)
        return [
            Shown(
                mean="-" if cell.mean is None else column.shown(cell.mean),
                deviation=column.shown(cell.deviation) if cell.deviation else None,
                reached=_reached(cell),
                best=place in best,
            )
            for place, cell in enumerate(cells)
        ]


def decimals_for(numbers: Sequence[float]) -> int:
    """So many that the least of these numbers (but 0) has three digits, and at most six: a byte in MB."""
    least = min((abs(each) for each in numbers if each), default=1.0)
    return min(6, max(0, 2 - floor(log10(least))))


def _reached(cell: Estimate) -> str | None:
    return f"{len(cell.values)} of {cell.seeds} seeds" if 0 < len(cell.values) < cell.seeds else None


def _best(column: Measure, cells: Sequence[Estimate]) -> set[int]:
    """Which cells read the same as the best; none where that would be all.

    What only some of a row's seeds reached is no match for what all of another's did.
    """
    known = {place: cell.mean for place, cell in enumerate(cells) if cell.mean is not None}
    whole = {place: mean for place, mean in known.items() if _reached(cells[place]) is None}
    compared = whole or known
    if column.better is None or not compared:
        return set()
    best = (max if column.better == "higher" else min)(compared.values())
    winners = {place for place, mean in compared.items() if column.shown(mean) == column.shown(best)}
    return winners if len(winners) < len(cells) else set()
