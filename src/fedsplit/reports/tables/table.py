"""A table: what it is asked for, as `exp_configs.yaml` says it, how it is made of runs, and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from statistics import fmean, stdev
from typing import Literal, TypeAlias, get_args

from fedsplit.config.values import Percentile, Share, fits
from fedsplit.errors import UserError
from fedsplit.reports.figures.groups import Group, over_seeds
from fedsplit.reports.figures.wording import in_words
from fedsplit.reports.runs import Run
from fedsplit.reports.spread import half_interval
from fedsplit.reports.tables.measures import NAMES, TO_ACCURACY, Measure, measures, usual

Spread: TypeAlias = Literal["deviation", "interval"]
"""Number behind a mean over seeds: their standard deviation, or the 95 % interval of the mean."""
_TOLD_OF_SPREAD = {
    "deviation": "Mean ± standard deviation over seeds.",
    "interval": "Mean over seeds ± 95 % interval of that mean, by Student's t.",
}


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
        """Mean over the seeds that have a value; None where none has."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample, with n - 1; None of fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> float | None:
        """Half the 95 % confidence interval of the mean, by Student's t; None of fewer than two values."""
        return half_interval(self.values)

    def spread(self, kind: Spread) -> float | None:
        """Spread of that kind; None of fewer than two values."""
        return self.interval if kind == "interval" else self.deviation


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Args:
        algorithm: canonical name of the algorithm.
        setting: remaining setting that distinguishes the row; may be empty.
    """

    algorithm: str
    setting: str
    seeds: tuple[int, ...]
    cells: tuple[Estimate, ...]


@dataclass(frozen=True)
class TableCell:
    """A cell as people read it.

    Args:
        mean: `-` where no seed has it.
        spread: number behind `±`; None for a single seed, and where all have exactly the same.
        share_at_target: `k of n seeds` where only some have it.
    """

    mean: str
    spread: str | None = None
    share_at_target: str | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of numbers, kept as numbers.

    Args:
        name: name of its files, without the ending.
        columns: each with its `decimals`.
        spread: kind of number behind `±`.
    """

    name: str
    title: str
    columns: tuple[Measure, ...]
    rows: tuple[Row, ...]
    runs: Sequence[Run]
    spread: Spread = "deviation"

    def names(self) -> list[str]:
        """The titles of what names rows."""
        settings = any(row.setting for row in self.rows)
        several = any(len(row.seeds) > 1 for row in self.rows)
        return ["Algorithm", *(["Setting"] if settings else []), *(["Seeds"] if several else [])]

    def note(self) -> str:
        """Note on how to read the cells."""
        cells = [cell for _, row in self.lines() for cell in row]
        said = {
            _TOLD_OF_SPREAD[self.spread]: any(cell.spread for cell in cells),
            "The best of a column is bold.": any(cell.best for cell in cells),
            "-: not reached, or not measured.": any(cell.mean == "-" for cell in cells),
            "Runs that have not ended count with what they have.": any(
                run.results is None for run in self.runs
            ),
            "MB are millions of bytes.": any("(MB)" in column.title for column in self.columns),
        }
        return " ".join(text for text, holds in said.items() if holds)

    def lines(self) -> list[tuple[dict[str, str], list[TableCell]]]:
        """Names of each row, and its cells as people read them; an algorithm goes by its name in figures.

        `Setting` is there where a row has one, and `Seeds` where a row has several. The best of a column are
        the cells that read the same as its best number.
        """
        named = [
            {"Algorithm": in_words(row.algorithm), "Setting": row.setting, "Seeds": str(len(row.seeds))}
            for row in self.rows
        ]
        by_column = [self._cells(index) for index in range(len(self.columns))]
        return [
            ({title: each[title] for title in self.names()}, [column[place] for column in by_column])
            for place, each in enumerate(named)
        ]

    def _cells(self, index: int) -> list[TableCell]:
        column = self.columns[index]
        cells = [row.cells[index] for row in self.rows]
        best = _best(column, cells)
        return [
            TableCell(
                mean="-" if cell.mean is None else column.show(cell.mean),
                spread=column.show(spread) if (spread := cell.spread(self.spread)) else None,
                share_at_target=_describe_reaching(cell),
                best=place in best,
            )
            for place, cell in enumerate(cells)
        ]


def decimals_for(numbers: Sequence[float]) -> int:
    """Decimals with which the least of these numbers (but 0) has three digits; at most six, a byte in MB."""
    least = min((abs(each) for each in numbers if each), default=1.0)
    return min(6, max(0, 2 - floor(log10(least))))


def _describe_reaching(cell: Estimate) -> str | None:
    return f"{len(cell.values)} of {cell.seeds} seeds" if 0 < len(cell.values) < cell.seeds else None


def _best(column: Measure, cells: Sequence[Estimate]) -> set[int]:
    """Positions of cells that read the same as the best; none where that would be all.

    What only some of a row's seeds reached is compared with nothing: seeds that did not would have raised it.
    """
    compared = {
        place: cell.mean
        for place, cell in enumerate(cells)
        if cell.mean is not None and _describe_reaching(cell) is None
    }
    if column.better is None or not compared:
        return set()
    best = (max if column.better == "higher" else min)(compared.values())
    winners = {place for place, mean in compared.items() if column.show(mean) == column.show(best)}
    return winners if len(winners) < len(cells) else set()


KEYS = ("targets", "columns", "spread")


@dataclass(frozen=True)
class TableRequest:
    """A table to be made.

    Args:
        targets: accuracies to be reached, as fractions.
        columns: see `measures.NAMES`; None: the usual ones, where a run has them.
        spread: kind of number behind `±`.
    """

    targets: tuple[float, ...] = ()
    columns: tuple[str, ...] | None = None
    spread: Spread = "deviation"


def table_request(name: str, entry: object) -> TableRequest:
    """Request that the key `table` of an experiment makes; `UserError` where something in it is wrong."""
    key = f"{name}.table"
    if not isinstance(entry, Mapping):
        raise UserError(key, entry, f"must be {{}} or have keys of {', '.join(KEYS)}")
    for each in entry:
        if each not in KEYS:
            raise UserError(f"{key}.{each}", entry[each], f"no such key; known: {', '.join(KEYS)}")
    reached = accuracies(f"{key}.targets", entry["targets"]) if "targets" in entry else ()
    columns = _columns(f"{key}.columns", entry["columns"]) if "columns" in entry else None
    for column in columns or ():
        if column in TO_ACCURACY and not reached:
            raise UserError(f"{key}.columns", column, f"needs accuracies to be reached, in {key}.targets")
    spread = entry.get("spread", "deviation")
    if spread not in get_args(Spread):
        raise UserError(f"{key}.spread", spread, f"must be one of {', '.join(get_args(Spread))}")
    return TableRequest(reached, columns, spread)


def accuracies(key: str, entry: object) -> tuple[float, ...]:
    """Accuracies to be reached that `key` lists, as fractions; `UserError` where they are none."""
    message = "must be a list of different accuracies above 0, at most 1, as [0.8, 0.9]"
    if not isinstance(entry, list) or not fits(list[Share], entry):
        percent = isinstance(entry, list) and fits(list[Percentile], entry)
        raise UserError(key, entry, f"{message}; 80 % is 0.8" if percent else message)
    if len({f"{each:g}" for each in entry}) < len(entry):  # they name columns
        raise UserError(key, entry, message)
    return tuple(map(float, entry))


def _columns(key: str, entry: object) -> tuple[str, ...]:
    if not isinstance(entry, list) or not entry:
        raise UserError(key, entry, f"must be a list of {', '.join(NAMES)}")
    for i, each in enumerate(entry):
        if each not in NAMES:
            raise UserError(key, each, f"must be among {', '.join(NAMES)}")
        if each in entry[:i]:
            raise UserError(key, each, "must be named once")
    return tuple(entry)


def table_of(request: TableRequest, runs: Sequence[Run], *, name: str, title: str) -> Table:
    """The table that is asked for; of each setting and seed there must be one run (see `without_repeats`)."""
    groups = over_seeds(runs)
    wanted = measures(usual(runs) if request.columns is None else request.columns, request.targets)
    cells = [[_estimate(measure, group) for group in groups] for measure in wanted]
    if request.columns is None:
        means = [{cell.mean for cell in column if cell.mean is not None} for column in cells]
        # a measure that is neither good nor bad is worth a column only where rows differ
        kept = [place for place, measure in enumerate(wanted) if measure.better or len(means[place]) > 1]
        wanted, cells = [wanted[place] for place in kept], [cells[place] for place in kept]
    rows = [
        Row(group.hue, group.setting, group.seeds, tuple(column[place] for column in cells))
        for place, group in enumerate(groups)
    ]
    columns = [_column(measure, column) for measure, column in zip(wanted, cells, strict=True)]
    return Table(name, title, tuple(columns), tuple(rows), tuple(runs), request.spread)


def _estimate(measure: Measure, group: Group) -> Estimate:
    found = [measure.of(run) for run in group.runs]
    return Estimate(tuple(each for each in found if each is not None), len(group.runs))


def _column(measure: Measure, cells: Sequence[Estimate]) -> Measure:
    """The measure, with its decimals."""
    shown = [measure.scale * cell.mean for cell in cells if cell.mean is not None]
    return replace(measure, decimals=decimals_for(shown)) if measure.decimals is None else measure
