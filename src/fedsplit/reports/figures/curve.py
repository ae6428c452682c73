"""A metric against what a run uses up: rounds, load, seconds; a line for each setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from typing_extensions import override

from fedsplit.config.values import Range, fits
from fedsplit.errors import UserError
from fedsplit.reports.figures.figure_type import FigureType, Series, keep_first
from fedsplit.reports.figures.groups import Group, by_number, count_noun, describe_seeds, over_seeds
from fedsplit.reports.figures.lines import Line, Looks, draw_lines, draw_targets
from fedsplit.reports.figures.measures import Progress, axis_label, column, lower_is_better, progress
from fedsplit.reports.figures.style import (
    LABEL_SIZE,
    PALE,
    TEXT_SIZE,
    blank_figure,
    legend_below,
    load_axis,
    log_axis,
    looks,
    tidy,
    wrap_label,
)
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run
from fedsplit.reports.spread import BAND_WORDS, Band, band_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _are_panels(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(title, str) and names and fits(list[str], names) for title, names in value.items()
    )


Panels: TypeAlias = Annotated[
    Any, Range("panels by title, each a list of names, as {Cut gradients: [splitfed_v1]}", _are_panels)
]
"""Titles of panels, each with the names, of those that colours stand for, whose lines are in it."""
_LEGEND_LINE = 0.16  # inches


@dataclass(frozen=True)
class Curve(FigureType[Sequence[Line]]):
    """Mean over seeds of a metric with a band, with markers, and where it reaches targets.

    Args:
        y: a column of metrics.csv; `accuracy` and `loss` are those of the test images.
        targets: values of y; a line marks the x at which each curve reaches them.
        spread: number that the band shows.
        panels: side by side, for more lines than one holds; in each, the lines of all others are pale.
    """

    x: Progress = "load"
    y: str = "test_accuracy"
    by: str = "algorithm"
    targets: tuple[float, ...] = ()
    log: tuple[Literal["x", "y"], ...] = ()
    spread: Band = "range"
    panels: Panels = field(default_factory=dict)

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
        for line in lines:
            if self.panels and not any(_is_named(line.hue, names) for names in self.panels.values()):
                raise UserError("panels", ", ".join(self.panels), f"must have {line.hue} in one of them")
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
        bands = [band_ends([values[t] for values in ys], self.spread) for t in common]
        return Line(
            label=group.label,
            hue=group.hue,
            setting=group.setting,
            seeds=group.seeds,
            x=x,
            mean=mean,
            low=tuple(low for low, _ in bands),
            high=tuple(high for _, high in bands),
            first_x=tuple(self._first_x(x, mean, target) for target in self.targets),
        )

    def _first_x(self, x: Sequence[float], mean: Sequence[float], target: float) -> float | None:
        sign = -1 if lower_is_better(self.y) else 1
        return next((at for at, value in zip(x, mean, strict=True) if sign * value >= sign * target), None)

    @override
    def keep(self, series: Sequence[Series]) -> set[Series]:
        """The series that are drawn: of each panel as many as of a figure without."""
        if not self.panels:
            return super().keep(series)
        panels = ([each for each in series if _is_named(each[0], names)] for names in self.panels.values())
        return set().union(*(keep_first(panel, self.limits) for panel in panels))

    def _parts(self, lines: Sequence[Line]) -> dict[str, list[Line]]:
        """The lines of each panel that has some."""
        parts = {
            title: [line for line in lines if _is_named(line.hue, names)]
            for title, names in self.panels.items()
        }
        return {title: part for title, part in parts.items() if part}

    @override
    def draw(self, data: Sequence[Line]) -> "Figure":
        """One axes with its legend below, 3.5 inches wide: a column of a paper. Panels take both columns."""
        found = looks([(line.hue, line.setting) for line in data], by_number)
        if self.panels:
            return self._draw_panels(data, found)
        figure = blank_figure(3.5, 2.4)
        axes = figure.add_subplot()
        drawn = draw_lines(axes, data, found, crowded="x" in self.log)
        self._scale(axes, data)
        texts = legend_texts([line.label for line in data])
        legend_below(figure, drawn, texts, self._describe_seeds(data))
        figure.set_figheight(figure.get_figheight() + self._draw_targets(axes, data, data, found))
        return figure

    def _draw_panels(self, data: Sequence[Line], found: Looks) -> "Figure":
        """Axes of the same scale side by side, with the legend of each below it."""
        parts = self._parts(data)
        figure = blank_figure(7.0, 2.7)
        texts = dict(zip(data, legend_texts([line.label for line in data]), strict=True))
        row = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
        raised = lowered = 0.0
        for axes, (title, lines) in zip(row, parts.items(), strict=True):
            for other in data:
                if other not in lines:
                    axes.plot(other.x, other.mean, color=PALE, alpha=0.5, linewidth=0.8, zorder=1.0)
            drawn = draw_lines(axes, lines, found, crowded="x" in self.log)
            self._scale(axes, data)
            axes.label_outer()
            labels = [wrap_label(texts[line], 30) for line in lines]
            lowered = max(lowered, _LEGEND_LINE * sum(label.count("\n") + 1 for label in labels))
            _legend_below_axes(axes, drawn, labels)
            height = self._draw_targets(axes, lines, data, found)
            axes.set_title(title, fontsize=LABEL_SIZE, pad=4 + 72 * height)
            raised = max(raised, height)
        note = [self._describe_seeds(data), "the lines of other panels are pale" if len(parts) > 1 else None]
        words = "; ".join(filter(None, note))
        figure.supxlabel(words[:1].upper() + words[1:], fontsize=TEXT_SIZE)
        figure.set_figheight(figure.get_figheight() + raised + lowered)
        return figure

    def _scale(self, axes: "Axes", lines: Sequence[Line]) -> None:
        """Scales and labels of axes that hold these lines."""
        tidy(axes, axis_label(self.x), axis_label(column(self.y)))
        for axis in self.log:
            log_axis(axes.xaxis if axis == "x" else axes.yaxis)
        if "x" not in self.log:
            axes.locator_params(axis="x", nbins=6, integer=self.x == "round")
            if self.x != "round":
                axes.set_xlim(left=0)
        if self.x == "load":
            load_axis(axes.xaxis, _largest(lines))

    def _draw_targets(self, axes: "Axes", lines: Sequence[Line], data: Sequence[Line], found: Looks) -> float:
        if not self.targets:
            return 0.0
        load_up_to = _largest(data) if self.x == "load" else None
        return draw_targets(axes, lines, self.targets, found, load_up_to=load_up_to)

    def _describe_seeds(self, lines: Sequence[Line]) -> str | None:
        return describe_seeds([line.seeds for line in lines], BAND_WORDS[self.spread])


def _is_named(hue: str, names: Sequence[str]) -> bool:
    """True if what a colour stands for is one of these: a choice, or a value as `int8` of `quant=int8`."""
    return bool({hue, hue.partition("=")[2]} & set(names))


def _largest(lines: Sequence[Line]) -> float:
    return max(max(line.x) for line in lines)


def _legend_below_axes(axes: "Axes", drawn: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend of one column below the label of the x axis."""
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415

    figure = axes.get_figure(root=True)
    assert figure is not None
    axes.legend(
        drawn,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -32 / 72, figure.dpi_scale_trans),
        fontsize=TEXT_SIZE,
        frameon=False,
        handlelength=2.8,
        borderpad=0.1,
        labelspacing=0.3,
    )
