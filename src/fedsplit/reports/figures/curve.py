"""A metric against what a run uses up: rounds, load, seconds; a line for each setting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.reports.figures.figure_type import FigureType
from fedsplit.reports.figures.groups import Group, by_number, count_noun, over_seeds, seeds_drawn
from fedsplit.reports.figures.measures import Progress, axis_label, column, lower_is_better, progress
from fedsplit.reports.figures.style import (
    PALE,
    TEXT_SIZE,
    blank_figure,
    in_load_unit,
    legend_below,
    load_axis,
    log_axis,
    looks,
    three_digits,
    tidy,
)
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        x: mean over seeds of what was used up after each round that all of them have: rounds, MB or seconds.
        mean: over seeds, at each x.
        low: the least of the seeds, at each x; `high` the greatest.
        reached: first x for each target at which the mean is as good; None where it never is.
    """

    label: str
    hue: str
    setting: str
    seeds: tuple[int, ...]
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    reached: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Curve(FigureType[Sequence[Line]]):
    """Mean and range over seeds of a metric, with markers, and where it reaches targets.

    Args:
        y: a column of metrics.csv; `accuracy` and `loss` are those of the test images.
        targets: values of y; a line marks the x at which each curve reaches them.
    """

    x: Progress = "load"
    y: str = "test_accuracy"
    by: str = "algorithm"
    targets: tuple[float, ...] = ()
    log: tuple[Literal["x", "y"], ...] = ()

    summary: ClassVar = "a metric against rounds, load or time, with a band over seeds and targets"

    @property
    @override
    def name(self) -> str:
        return f"{column(self.y).removeprefix('test_')}-{self.x}"

    @override
    def check(self, run: Run) -> None:
        run.values(column(self.y))
        progress(run, self.x)

    @override
    def data(self, runs: Sequence[Run]) -> list[Line]:
        lines = [self._line(group) for group in over_seeds(runs, self.by)]
        if len({len(line.seeds) for line in lines}) > 1:
            return [
                replace(line, label=f"{line.label}, {count_noun(len(line.seeds), 'seed')}") for line in lines
            ]
        return lines

    def _line(self, group: Group) -> Line:
        ys = [run.values(column(self.y)) for run in group.runs]
        xs = [progress(run, self.x) for run in group.runs]
        common = sorted(set.intersection(*map(set, ys), *map(set, xs)))
        if not common:
            message = f"must share a round with a {column(self.y)} with its other seeds"
            raise UserError("run", group.runs[0].path, message)
        x = tuple(fmean(used[t] for used in xs) for t in common)
        mean = tuple(fmean(values[t] for values in ys) for t in common)
        return Line(
            label=group.label,
            hue=group.hue,
            setting=group.setting,
            seeds=group.seeds,
            x=x,
            mean=mean,
            low=tuple(min(values[t] for values in ys) for t in common),
            high=tuple(max(values[t] for values in ys) for t in common),
            reached=tuple(self._reached(x, mean, target) for target in self.targets),
        )

    def _reached(self, x: Sequence[float], mean: Sequence[float], target: float) -> float | None:
        sign = -1 if lower_is_better(self.y) else 1
        return next((at for at, value in zip(x, mean, strict=True) if sign * value >= sign * target), None)

    @override
    def draw(self, data: Sequence[Line]) -> "Figure":
        """One axes with its legend below, 3.5 inches wide: a column of a paper."""
        figure = blank_figure(3.5, 2.4)
        axes = figure.add_subplot()
        drawn = self._draw_lines(axes, data)
        texts = legend_texts([line.label for line in data])
        legend_below(figure, drawn, texts, seeds_drawn([line.seeds for line in data]))
        if self.targets:
            self._draw_targets(axes, data)
        return figure

    def _draw_lines(self, axes: "Axes", lines: Sequence[Line]) -> list[object]:
        found = looks([(line.hue, line.setting) for line in lines], by_number)
        drawn: list[object] = []
        for i, line in enumerate(lines):
            look = found[line.hue, line.setting]
            # SplitFed v1 is FedAvg by design: a line that later ones would cover shows on both sides of them.
            covered = sum(_coincide(line, later) for later in lines[i + 1 :])
            step = max(1, len(line.x) // 8)
            drawn += axes.plot(
                line.x,
                line.mean,
                color=look.colour,
                linestyle=look.dash,
                linewidth=1.3 + 1.8 * covered,
                markersize=4 + 2.5 * covered,
                markeredgewidth=0 if look.fill == "full" else 0.8,
                **look.of_markers,
                markevery=(i * step // len(lines), step),
            )
            if len(line.seeds) > 1:
                axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
        tidy(axes, axis_label(self.x), axis_label(column(self.y)))
        for axis in self.log:
            log_axis(axes.xaxis if axis == "x" else axes.yaxis)
        if "x" not in self.log:
            axes.locator_params(axis="x", nbins=6, integer=self.x == "round")
            if self.x != "round":
                axes.set_xlim(left=0)
        if self.x == "load":
            load_axis(axes.xaxis, max(max(line.x) for line in lines))
        return drawn

    def _draw_targets(self, axes: "Axes", lines: Sequence[Line]) -> None:
        """A thin line in the colour of each curve, with x in numbers above the axes, where none overlaps."""
        found = looks([(line.hue, line.setting) for line in lines], by_number)
        largest = max(max(line.x) for line in lines)
        places = []
        for i, target in enumerate(self.targets):
            axes.axhline(target, color=PALE, linewidth=0.8, zorder=0.5)
            places += [
                (x, found[line.hue, line.setting].colour)
                for line in lines
                if (x := line.reached[i]) is not None
            ]
        texts = []
        for x, colour in sorted(places):
            axes.axvline(x, color=colour, linestyle=(0, (3, 2)), linewidth=0.8, zorder=1.5)
            shown = three_digits(in_load_unit(x, largest) if self.x == "load" else x)
            texts.append(
                axes.annotate(
                    shown,
                    (x, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, 1),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=TEXT_SIZE,
                    color=colour,
                )
            )
        _stack(axes, texts)


def _stack(axes: "Axes", texts: Sequence[object]) -> None:
    """Raise each of the texts, given from left to right, above those that it would overlap."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    ends: list[float] = []  # right ends of the texts on each level, in pixels
    for text in texts:
        box = text.get_window_extent()  # type: ignore[attr-defined]
        level = next((i for i, end in enumerate(ends) if box.x0 > end + 4), len(ends))
        ends[level:] = [box.x1, *ends[level + 1 :]]
        text.set_position((0, 1 + level * (TEXT_SIZE + 1)))  # type: ignore[attr-defined]
    figure.set_figheight(figure.get_figheight() + len(ends) * (TEXT_SIZE + 1) / 72)


def _coincide(one: Line, other: Line) -> bool:
    """True if one line would cover the other: within half a percent of their height everywhere."""
    within = 0.005 * max(abs(value) for value in one.mean)
    return one.x == other.x and all(abs(a - b) <= within for a, b in zip(one.mean, other.mean, strict=True))
