"""A metric against a setting: heterogeneity, size of the auxiliary model, interval of alignment, bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.groups import by_number, describe_seeds, numbers_first, over_seeds
from fedsplit.reports.figures.measures import Moment, at_moment, axis_label, column
from fedsplit.reports.figures.setting import ALPHA, AUXILIARY, BITS, SettingAxis, setting, thin_ticks
from fedsplit.reports.figures.style import blank_figure, legend_below, log_axis, looks, tidy
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run, Setting
from fedsplit.reports.spread import BAND_WORDS, Band, band_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_APART: Mapping[str, tuple[str, ...]] = {
    ALPHA: ("distribution",),
    AUXILIARY: ("auxiliary", "model.auxiliary"),
    BITS: ("quant",),
}
"""The settings in which runs of a line may differ, by what is on the x axis; else the key itself."""
_LABELS: Mapping[str, str] = {
    ALPHA: "Dirichlet \N{GREEK SMALL LETTER ALPHA}",
    AUXILIARY: "Parameters of the auxiliary model",
    BITS: "Bits a value on the wire",
    "algorithm.align_interval": "Rounds between alignments",
    "num_clients": "Clients",
    "rounds": "Rounds",
}
_BIT_TICKS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Point:
    """Runs that differ only in their seed.

    Args:
        x: the setting: a number, or its name.
        low: lower end of the band; `high` the upper one.
    """

    x: float | str
    mean: float
    low: float
    high: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Series:
    """A line: runs that differ only in the setting and their seed; points from left to right."""

    label: str
    hue: str
    setting: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Against(FigureType[Sequence[Series]]):
    """Mean over seeds of a metric at one moment with its spread, against a setting.

    Args:
        x: a group or dotted key; `distribution.alpha` has IID runs as the last tick, `auxiliary` stands for
            the number of the auxiliary model's parameters, `bits` for the mean over all values sent
            (but labels).
        y: a column of metrics.csv.
        log: x also has a logarithmic scale where its numbers go far apart.
        spread: number that error bars show.
    """

    x: str = ALPHA
    y: str = "test_accuracy"
    at: Moment = "final"
    by: str = "algorithm"
    log: tuple[Literal["x", "y"], ...] = ()
    spread: Band = "range"

    summary: ClassVar = "a metric at the end against a setting: alpha, auxiliary, bits, any key"

    @property
    @override
    def name(self) -> str:
        return f"{column(self.y).removeprefix('test_')}-against-{self.x}"

    @override
    def check(self, run: Run) -> None:
        at_moment(run, self.y, self.at)
        setting(run, self.x)

    @override
    def data(self, runs: Sequence[Run]) -> list[Series]:
        apart = _APART.get(self.x, (self.x,))
        points: dict[Setting, list[Point]] = {}
        for group in over_seeds(runs, self.by):
            values = [at_moment(run, self.y, self.at) for run in group.runs]
            low, high = band_ends(values, self.spread)
            xs = [setting(run, self.x) for run in group.runs]
            point = Point(
                x=_mean(xs),
                mean=fmean(values),
                low=low,
                high=high,
                seeds=group.seeds,
            )
            points.setdefault(group.runs[0].setting_beside(apart), []).append(point)
        one_of_each = list({run.setting_beside(apart): run for run in runs}.values())
        return [
            Series(line.label, line.hue, line.setting, _sort(points[line.runs[0].setting_beside(apart)]))
            for line in over_seeds(one_of_each, self.by, apart)
        ]

    @override
    def draw(self, data: Sequence[Series]) -> "Figure":
        """One axes with its legend below, a column wide."""
        figure = blank_figure(3.5, 2.4)
        axes = figure.add_subplot()
        found = looks([(line.hue, line.setting) for line in data], by_number)
        scale = SettingAxis.of([point.x for line in data for point in line.points], "x" in self.log)
        drawn = []
        for i, line in enumerate(data):
            look = found[line.hue, line.setting]
            drawn.append(
                axes.errorbar(
                    [scale.place(point.x, i, len(data)) for point in line.points],
                    [point.mean for point in line.points],
                    yerr=[
                        [point.mean - point.low for point in line.points],
                        [point.high - point.mean for point in line.points],
                    ],
                    color=look.colour,
                    linestyle=look.dash,
                    linewidth=1.3,
                    markersize=4,
                    markeredgewidth=0.8,
                    **look.of_markers,
                    elinewidth=0.9,
                    capsize=2,
                    capthick=0.9,
                )
            )
        label = _LABELS.get(self.x, self.x)
        tidy(axes, label, axis_label(column(self.y)))
        if "y" in self.log:
            log_axis(axes.yaxis)
        scale.set_ticks(axes, _BIT_TICKS if self.x == BITS else ())
        seeds = [point.seeds for line in data for point in line.points]
        texts = legend_texts([line.label for line in data])
        legend_below(figure, drawn, texts, describe_seeds(seeds, BAND_WORDS[self.spread]))
        thin_ticks(axes)
        return figure


def _mean(xs: Sequence[float | str]) -> float | str:
    """Mean of a measured setting, such as bits; any other setting is the same for all seeds."""
    numbers = [x for x in xs if not isinstance(x, str)]
    return fmean(numbers) if len(set(numbers)) > 1 else xs[0]


def _sort(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: numbers_first(point.x)))
