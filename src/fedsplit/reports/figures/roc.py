"""Receiver operating characteristics of final models, one class against the rest."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_table, number, reading
from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.groups import Group, by_number, over_seeds
from fedsplit.reports.figures.style import (
    GRID,
    blank_figure,
    legend_below,
    log_axis,
    looks,
    tidy,
)
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROC = "roc.csv"
_COLUMNS = ("class", "false_positive_rate", "true_positive_rate")
_LEAST_LOG_RATE = 1e-3
Points: TypeAlias = Sequence[tuple[float, float]]
"""False and true positive rates, ascending, from (0, 0) to (1, 1)."""


@dataclass(frozen=True)
class RocLine:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        false_positive_rate: every one that a curve of a class and seed has a point at, each twice: where
            curves rise steeply, the line rises as well.
        true_positive_rate: the mean over classes and seeds, just before and at each of these.
        area: under the curves; the mean over classes and seeds.
        classes: classes whose mean is taken; with very many, `micro`, over all decisions.
    """

    label: str
    hue: str
    setting: str
    seeds: tuple[int, ...]
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    area: float
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Roc(FigureType[Sequence[RocLine]]):
    """Mean over classes (each against the rest) and seeds, and the area under it.

    Args:
        log: `[x]` spreads the corner in which good models crowd.
    """

    by: str = "algorithm"
    log: tuple[Literal["x"], ...] = ()

    summary: ClassVar = "ROC of the final model, one class against the rest, with its area"

    @override
    def check(self, run: Run) -> None:
        read_roc(run.path)

    @override
    def data(self, runs: Sequence[Run]) -> list[RocLine]:
        return [_line(group) for group in over_seeds(runs, self.by)]

    @override
    def draw(self, data: Sequence[RocLine]) -> "Figure":
        """One axes with its legend below, a column wide."""
        figure = blank_figure(3.5, 2.6)
        axes = figure.add_subplot()
        found = looks([(line.hue, line.setting) for line in data], by_number)
        chance = [_LEAST_LOG_RATE * 1.02**i for i in range(349)] if self.log else [0.0, 1.0]
        axes.plot(chance, chance, color=GRID, linewidth=1.0)
        drawn = []
        for line in data:
            drawn += axes.plot(
                [max(x, _LEAST_LOG_RATE / 10) if self.log else x for x in line.false_positive_rate],
                line.true_positive_rate,
                color=found[line.hue, line.setting].colour,
                linestyle=found[line.hue, line.setting].dash,
                linewidth=1.3,
            )
        tidy(axes, "False positive rate", "True positive rate")
        axes.set_ylim(-0.02, 1.02)
        if self.log:
            axes.set_xlim(_LEAST_LOG_RATE, 1.0)
            log_axis(axes.xaxis)
        else:
            axes.set_xlim(-0.02, 1.02)
        several = max(len(line.seeds) for line in data) > 1
        micro = all(line.classes == ("micro",) for line in data)
        of = ["all decisions" if micro else "classes", *(["seeds"] if several else [])]
        title = f"Mean over {' and '.join(of)}, and area under it"
        texts = legend_texts([line.label for line in data])
        labels = [f"{text}, {line.area:.4f}" for text, line in zip(texts, data, strict=True)]
        legend_below(figure, drawn, labels, title)
        return figure


def read_roc(run: Path) -> dict[str, Points]:
    """The points of each class, of a run's `roc.csv`; `UserError` where it is missing or damaged."""
    with reading(run, ROC, "only runs that have ended do"):
        rows = [tuple(line[name] for name in _COLUMNS) for _, line in csv_table(run / ROC)[1]]
        curves: dict[str, list[tuple[float, float]]] = {}
        for name, x, y in rows:
            curves.setdefault(name, []).append((number(x), number(y)))
    if not curves:
        raise UserError("run", run, f"{ROC} must hold curves; of a single class there are none")
    for points in curves.values():
        rising = all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(points))
        if not rising or points[0] != (0.0, 0.0) or points[-1] != (1.0, 1.0):
            raise UserError("run", run, f"{ROC} must not be damaged")
    return dict(curves)


def _line(group: Group) -> RocLine:
    read = [read_roc(run.path) for run in group.runs]
    curves = [points for each in read for points in each.values()]
    rates = sorted({x for points in curves for x, _ in points})
    found = [[_beside(points, x) for points in curves] for x in rates]
    return RocLine(
        label=group.label,
        hue=group.hue,
        setting=group.setting,
        seeds=group.seeds,
        false_positive_rate=tuple(x for x in rates for _ in range(2)),
        true_positive_rate=tuple(fmean(side) for each in found for side in zip(*each, strict=True)),
        area=fmean(_area(points) for points in curves),
        classes=tuple(read[0]),
    )


def _beside(points: Points, x: float) -> tuple[float, float]:
    """The true positive rates just before x, and at it: a curve that rises there has two."""
    first = bisect_right(points, (x, -1.0))
    after = bisect_right(points, (x, 2.0))
    if first == after:  # between two points
        (x0, y0), (x1, y1) = points[first - 1], points[first]
        between = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        return between, between
    return points[first][1], points[after - 1][1]


def _area(points: Points) -> float:
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
