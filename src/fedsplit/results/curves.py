"""Curves: the metrics of runs, averaged over seeds and drawn."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING

from fedsplit.errors import UserError
from fedsplit.results.runs import Run, X, Y

if TYPE_CHECKING:  # matplotlib is optional and slow to import: only `figure` needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_LABELS: dict[X | Y, str] = {
    "round": "Round",
    "load": "Communication load (MB)",
    "test_accuracy": "Test accuracy",
    "test_loss": "Test loss",
    "train_loss": "Training loss",
}
# The palette of Okabe and Ito, "Color Universal Design", 2008, without its yellow (too pale for a line).
APPEARANCE: dict[str, tuple[str, str]] = {
    "fed_avg": ("#0072B2", "o"),
    "splitfed_v1": ("#E69F00", "s"),
    "splitfed_v2": ("#009E73", "^"),
    "cse_fsl": ("#CC79A7", "D"),
    "fsl_sage": ("#D55E00", "v"),
}
"""Colour and marker of each algorithm, in the order of drawing; the same in every figure."""
_OTHER_APPEARANCE = (("#000000", "X"), ("#56B4E9", "P"), ("#7F7F7F", "h"))
_DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)


@dataclass(frozen=True)
class Curve:
    """Runs that differ only in their seed, as one line.

    Args:
        label: for the legend.
        algorithm: its canonical name.
        setting: `label` without the algorithm and the number of seeds; may be empty.
        seeds: in ascending order.
        x: rounds, or mean loads in MB.
        mean: over seeds, at each x.
        low: the least of the seeds, at each x.
        high: the greatest.
    """

    label: str
    algorithm: str
    setting: str
    seeds: tuple[int, ...]
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def over_seeds(runs: Sequence[Run], x: X, y: Y) -> list[Curve]:
    """One curve for all runs that differ only in their seed, at the rounds that all of them have.

    Against load, x is the mean load of the seeds after each of these rounds.

    Of each setting and seed there must be one run (see `without_repeats`).

    Raises:
        UserError: a run has no value of `y`, or the runs of a curve have no round in common.
    """
    by_setting: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        by_setting.setdefault(tuple(run.settings.items()), []).append(run)
    found = [_curve(group, x, y) for group in by_setting.values()]
    if len({len(curve.seeds) for curve in found}) > 1:
        found = [replace(c, label=f"{c.label}, {_count(len(c.seeds), 'seed')}") for c in found]
    order = list(APPEARANCE)
    return sorted(
        found,
        key=lambda c: (
            order.index(c.algorithm) if c.algorithm in order else len(order),
            c.algorithm,
            _by_number(c.setting),
        ),
    )


def draw(axes: "Axes", curves: Sequence[Curve], x: X, y: Y) -> None:
    """Draw curves, with the range over seeds as a band, and name the axes; the legend is the figure's.

    Raises:
        UserError: more curves than can be told apart.
    """
    appearance = _appearance(curves)
    settings = sorted({curve.setting for curve in curves}, key=_by_number)
    if len(settings) > len(_DASHES):
        raise UserError("settings drawn", len(settings), f"at most {len(_DASHES)} in a figure")
    for i, curve in enumerate(curves):
        colour, marker = appearance[curve.algorithm]
        # SplitFed v1 is FedAvg by design: a curve that later ones would cover shows on both sides of them.
        covered = sum(_coincide(curve, later) for later in curves[i + 1 :])
        step = max(1, len(curve.x) // 8)
        axes.plot(
            curve.x,
            curve.mean,
            label=curve.label,
            color=colour,
            linestyle=_DASHES[settings.index(curve.setting)],
            linewidth=1.3 + 1.8 * covered,
            marker=marker,
            markersize=4 + 2.5 * covered,
            markeredgewidth=0,
            markevery=(i * step // len(curves), step),
        )
        if len(curve.seeds) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel(AXIS_LABELS[x], fontsize=9)
    axes.set_ylabel(AXIS_LABELS[y], fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=6, integer=x == "round")
    if x == "load":
        axes.set_xlim(left=0)
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def blank_figure(width: float, height: float) -> "Figure":
    """A figure without anything in it, of so many inches.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            "matplotlib", "missing", "needed to draw figures; pip install 'fedsplit[plot]'"
        ) from error
    blank = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(blank)
    return blank


def figure(curves: Sequence[Curve], x: X, y: Y) -> "Figure":
    """One axes with its legend below, 3.5 inches wide: a column of a paper.

    Raises:
        UserError: matplotlib is not installed, or there are more curves than can be told apart.
    """
    drawn = blank_figure(3.5, 2.4)
    axes = drawn.add_subplot()
    draw(axes, curves, x, y)
    lines = axes.get_lines()
    labels = [_wrapped(curve.label) for curve in curves]
    for columns in (3, 2, 1):
        legend = drawn.legend(
            lines,
            labels,
            loc="outside lower center",
            ncols=columns,
            title=_seeds_drawn(curves),
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            handlelength=2.8,
            columnspacing=1.0,
            borderpad=0.1,
            labelspacing=0.3,
        )
        extent = legend.get_window_extent()
        if extent.width <= drawn.bbox.width or columns == 1:
            break
        legend.remove()
    drawn.set_figheight(2.4 + extent.height / drawn.dpi)  # the legend takes nothing from the axes
    return drawn


def _curve(runs: Sequence[Run], x: X, y: Y) -> Curve:
    values = [run.values(y) for run in runs]
    common = sorted(set.intersection(*(set(value) for value in values)))
    if not common:
        raise UserError("run", runs[0].path, f"must share a round with a {y} with its other seeds")
    at_round = [[value[t] for value in values] for t in common]
    xs = [float(t) for t in common]
    if x == "load":
        loads = [run.values("load") for run in runs]
        xs = [fmean(load[t] for load in loads) / 1e6 for t in common]
    label, algorithm = runs[0].label, runs[0].algorithm
    return Curve(
        label=label,
        algorithm=algorithm,
        setting=label.removeprefix(algorithm).removeprefix(", "),
        seeds=tuple(sorted(run.config["seed"] for run in runs)),
        x=tuple(xs),
        mean=tuple(fmean(each) for each in at_round),
        low=tuple(min(each) for each in at_round),
        high=tuple(max(each) for each in at_round),
    )


def _by_number(text: str) -> list[tuple[float, str]]:
    """A sort key by which 2 comes before 10, and 0.1 before 0.3."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def _appearance(curves: Sequence[Curve]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every algorithm drawn."""
    others = sorted({curve.algorithm for curve in curves} - APPEARANCE.keys())
    if len(others) > len(_OTHER_APPEARANCE):
        allowed = f"at most {len(_OTHER_APPEARANCE)} in a figure beside {', '.join(APPEARANCE)}"
        raise UserError("algorithms drawn", ", ".join(others), allowed)
    return APPEARANCE | dict(zip(others, _OTHER_APPEARANCE, strict=False))


def _coincide(one: Curve, other: Curve) -> bool:
    """Whether one line would cover the other: within half a percent of their height everywhere."""
    within = 0.005 * max(abs(value) for value in one.mean)
    return one.x == other.x and all(abs(a - b) <= within for a, b in zip(one.mean, other.mean, strict=True))


def _wrapped(label: str) -> str:
    """A label in lines that fit the width of the figure, broken only between its pieces."""
    pieces = label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return fill(pieces, 44, break_on_hyphens=False)


def _seeds_drawn(curves: Sequence[Curve]) -> str | None:
    """What line and band stand for; None without bands."""
    counts = {len(curve.seeds) for curve in curves}
    if counts == {1}:
        return None
    return f"Mean and range of {_count(counts.pop(), 'seed') if len(counts) == 1 else 'seeds'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
