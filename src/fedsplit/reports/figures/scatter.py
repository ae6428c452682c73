"""A metric against what it cost: a point for each setting, whose size stands for heterogeneity."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.groups import by_number, numbers_first, over_seeds, seeds_drawn
from fedsplit.reports.figures.measures import Moment, Progress, at_moment, axis_label, column, progress
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZES = (3.5, 9.0)  # sizes of the smallest and the largest marker, in points
_MOST_SIZES = 6


@dataclass(frozen=True)
class Spot:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        size: the value that its size stands for.
        x: mean over seeds of what was used up at the end: MB, seconds or rounds.
        low: the least of the seeds; `high` the greatest.
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
    """Mean and range over seeds of a metric, against what the whole run used up.

    Args:
        y: a column of metrics.csv.
        size: the key that sizes stand for; by `distribution.alpha`, IID runs are the largest.
    """

    x: Progress = "load"
    y: str = "test_accuracy"
    at: Moment = "final"
    by: str = "algorithm"
    size: str = ALPHA
    log: tuple[Literal["x", "y"], ...] = ()

    summary: ClassVar = "a metric against load or time, a point for each setting, its size by alpha"

    @property
    @override
    def name(self) -> str:
        return f"{column(self.y).removeprefix('test_')}-{self.x}-scatter"

    @override
    def check(self, run: Run) -> None:
        at_moment(run, self.y, self.at)
        progress(run, self.x)
        setting(run, self.size)

    @override
    def data(self, runs: Sequence[Run]) -> list[Spot]:
        apart = (self.size, self.size.rpartition(".")[0]) if "." in self.size else (self.size,)
        lines = {run.path: line for line in over_seeds(runs, self.by, apart) for run in line.runs}
        spots = []
        for group in over_seeds(runs, self.by):
            values = [at_moment(run, self.y, self.at) for run in group.runs]
            line = lines[group.runs[0].path]
            spots.append(
                Spot(
                    hue=line.hue,
                    setting=line.setting,
                    size=setting(group.runs[0], self.size),
                    x=fmean(max(progress(run, self.x).values()) for run in group.runs),
                    mean=fmean(values),
                    low=min(values),
                    high=max(values),
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
        for spot in sorted(data, key=lambda spot: -sizes[spot.size]):  # small ones on top of large ones
            look = found[spot.hue, spot.setting]
            axes.errorbar(
                spot.x,
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
        legend_below(figure, handles, labels, seeds_drawn([spot.seeds for spot in data]))
        return figure


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
