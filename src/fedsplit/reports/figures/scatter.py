"""A metric against what it cost: a point for each setting, whose size stands for heterogeneity."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.reports.figures.figure_type import FigureType, SeriesLimits
from fedsplit.reports.figures.groups import by_number, describe_seeds, numbers_first, over_seeds
from fedsplit.reports.figures.measures import Moment, at_moment, axis_label, column, used_at_end
from fedsplit.reports.figures.setting import ALPHA, setting
from fedsplit.reports.figures.style import (
    INK,
    TEXT_SIZE,
    blank_figure,
    legend_below,
    load_axis,
    log_axis,
    looks,
    tidy,
)
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run
from fedsplit.reports.spread import BAND_WORDS, Band, band_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZES = (3.5, 9.0)  # sizes of the smallest and the largest marker, in points
_MOST_SIZES = 6
_NEAR, _ASIDE = 0.01, 0.024  # shares of the axis: within the first, points stand apart by the second


@dataclass(frozen=True)
class Spot:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        size: the value that its size stands for.
        x: mean over seeds of what was used up at the end (MB, seconds or rounds), or of the last value.
        low: lower end of the band; `high` the upper one.
    """

    hue: str
    setting: str
    size: float | str
    x: float
    mean: float
    low: float
    high: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Scatter(FigureType[Sequence[Spot]]):
    """Mean over seeds of a metric with its spread, against what the whole run used up.

    Args:
        x: a kind of progress, or a column of metrics.csv, of which the last value counts.
        y: a column of metrics.csv.
        size: the key that sizes stand for; by `distribution.alpha`, IID runs are the largest.
        spread: number that bars through points show.
    """

    x: str = "load"
    y: str = "test_accuracy"
    at: Moment = "final"
    by: str = "algorithm"
    size: str = ALPHA
    log: tuple[Literal["x", "y"], ...] = ()
    spread: Band = "range"

    summary: ClassVar = "a metric against load, time or a column, a point for each setting, its size by alpha"

    limits: ClassVar = SeriesLimits(series=20, settings=6)  # points cover less of each other than lines

    @property
    @override
    def name(self) -> str:
        return f"{column(self.y).removeprefix('test_')}-{self.x}-scatter"

    @override
    def check(self, run: Run) -> None:
        at_moment(run, self.y, self.at)
        used_at_end(run, self.x)
        setting(run, self.size)

    @override
    def data(self, runs: Sequence[Run]) -> list[Spot]:
        apart = (self.size, self.size.rpartition(".")[0]) if "." in self.size else (self.size,)
        lines = {run.path: line for line in over_seeds(runs, self.by, apart) for run in line.runs}
        spots = []
        for group in over_seeds(runs, self.by):
            values = [at_moment(run, self.y, self.at) for run in group.runs]
            low, high = band_ends(values, self.spread)
            line = lines[group.runs[0].path]
            spots.append(
                Spot(
                    hue=line.hue,
                    setting=line.setting,
                    size=setting(group.runs[0], self.size),
                    x=fmean(used_at_end(run, self.x) for run in group.runs),
                    mean=fmean(values),
                    low=low,
                    high=high,
                    seeds=group.seeds,
                )
            )
        return spots

    @override
    def draw(self, data: Sequence[Spot]) -> "Figure":
        """One axes, a column wide; sizes are explained above it, all else below."""
        from matplotlib.lines import Line2D  # noqa: PLC0415

        figure = blank_figure(3.5, 2.5)
        axes = figure.add_subplot()
        found = looks([(spot.hue, spot.setting) for spot in data], by_number)
        sizes = _sizes([spot.size for spot in data])
        places = _apart(data, logarithmic="x" in self.log)
        small_on_top = sorted(zip(data, places, strict=True), key=lambda each: -sizes[each[0].size])
        for spot, place in small_on_top:
            look = found[spot.hue, spot.setting]
            axes.errorbar(
                place,
                spot.mean,
                yerr=[[spot.mean - spot.low], [spot.high - spot.mean]],
                color=look.colour,
                elinewidth=0.8,
                markersize=sizes[spot.size],
                markeredgewidth=0.8,
                **look.of_markers
                | ({"markeredgecolor": "white"} if look.fill == "full" else {}),  # apart from those below
            )
        tidy(axes, axis_label(self.x), axis_label(column(self.y)))
        for axis in self.log:
            log_axis(axes.xaxis if axis == "x" else axes.yaxis)
        if self.x == "load":
            load_axis(axes.xaxis, max(spot.x for spot in data))
        _explain_sizes(axes, sizes, self.size)
        kinds = list(dict.fromkeys((spot.hue, spot.setting) for spot in data))
        handles = [
            Line2D(
                [],
                [],
                color=found[kind].colour,
                linestyle="",
                markersize=5,
                **found[kind].of_markers,
            )
            for kind in kinds
        ]
        labels = legend_texts([f"{hue}, {own}" if own else hue for hue, own in kinds])
        seeds = describe_seeds([spot.seeds for spot in data], BAND_WORDS[self.spread])
        legend_below(figure, handles, labels, seeds)
        return figure


def _apart(spots: Sequence[Spot], *, logarithmic: bool) -> list[float]:
    """Places of points on the x axis: series stand beside each other where their bars would meet."""
    scaled = [log(spot.x) if logarithmic else spot.x for spot in spots]
    width = max(scaled) - min(scaled)
    places = list(scaled)
    rest = sorted(range(len(spots)), key=lambda i: (scaled[i], i))
    while rest:
        together = sorted(i for i in rest if scaled[i] - scaled[rest[0]] <= _NEAR * width)
        rest = rest[len(together) :]
        series = list(dict.fromkeys(_series(spots[i]) for i in together))
        if any(_meet(spots[i], spots[j]) for i, j in combinations(together, 2)):
            for i in together:
                places[i] += _ASIDE * width * (series.index(_series(spots[i])) - (len(series) - 1) / 2)
    return [exp(place) if logarithmic else place for place in places]


def _series(spot: Spot) -> tuple[str, str]:
    return spot.hue, spot.setting


def _meet(one: Spot, other: Spot) -> bool:
    """True if bars of two series would cover each other at the same place."""
    return _series(one) != _series(other) and one.low <= other.high and other.low <= one.high


def _sizes(values: Sequence[float | str]) -> dict[float | str, float]:
    """Diameters in points, growing from the least number to the greatest, then by names; evenly."""
    distinct = sorted(set(values), key=numbers_first)
    if len(distinct) > _MOST_SIZES:
        raise UserError("sizes", ", ".join(map(str, distinct)), f"must be at most {_MOST_SIZES} in a figure")
    least, greatest = _SIZES
    if len(distinct) == 1:
        return {distinct[0]: (least + greatest) / 2}
    gap = (greatest - least) / (len(distinct) - 1)
    return {value: least + i * gap for i, value in enumerate(distinct)}


def _explain_sizes(axes: "Axes", sizes: dict[float | str, float], key: str) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    if len(sizes) < 2:
        return
    name = "\N{GREEK SMALL LETTER ALPHA}" if key == ALPHA else key.rpartition(".")[2]
    axes.legend(
        [Line2D([], [], color=INK, linestyle="", marker="o", markersize=size) for size in sizes.values()],
        [value if isinstance(value, str) else f"{name} = {value:g}" for value in sizes],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(sizes), 4),
        fontsize=TEXT_SIZE,
        frameon=False,
        handletextpad=0.1,
        columnspacing=0.8,
        borderpad=0.1,
    )
