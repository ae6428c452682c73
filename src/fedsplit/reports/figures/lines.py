"""Lines of a metric against what a run uses up, with bands, and where they reach targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fedsplit.reports.figures.figure_type import Series
from fedsplit.reports.figures.style import PALE, TEXT_SIZE, Look, in_load_unit, three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Line:
    """Runs that differ only in their seed, as a `Group`.

    Args:
        x: mean over seeds of what was used up after each round that all of them have: rounds, MB or seconds.
        mean: over seeds, at each x.
        low: lower end of the band, at each x; `high` the upper one.
        first_x: first x for each target at which the mean is as good; None where it never is.
    """

    label: str
    hue: str
    setting: str
    seeds: tuple[int, ...]
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    first_x: tuple[float | None, ...] = ()


Looks: TypeAlias = Mapping[Series, Look]
"""Look of each series of a figure."""
_MARKER_GAP = 0.14  # share of the diagonal of the axes


def draw_lines(axes: "Axes", lines: Sequence[Line], found: Looks, *, crowded: bool = False) -> list[object]:
    """Draw lines with markers and bands; their handles for a legend.

    Args:
        crowded: True if points lie closer together at one end, as on a logarithmic axis: markers do not.
    """
    drawn: list[object] = []
    for i, line in enumerate(lines):
        look = found[line.hue, line.setting]
        # SplitFed v1 is FedAvg by design: a line that later ones would cover shows on both sides of them.
        covered = sum(_coincide(line, later) for later in lines[i + 1 :])
        step = max(1, len(line.x) // 8)
        every = (_MARKER_GAP * i / len(lines), _MARKER_GAP) if crowded else (i * step // len(lines), step)
        drawn += axes.plot(
            line.x,
            line.mean,
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.3 + 1.8 * covered,
            markersize=4 + 2.5 * covered,
            markeredgewidth=0 if look.fill == "full" else 0.8,
            **look.of_markers,
            markevery=every,
        )
        if len(line.seeds) > 1:
            axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
    return drawn


def draw_targets(
    axes: "Axes", lines: Sequence[Line], targets: Sequence[float], found: Looks, *, load_up_to: float | None
) -> float:
    """A thin line in the colour of each curve, with x in numbers above the axes, where none overlaps.

    Args:
        load_up_to: the largest load of the figure in MB, where x is the load.

    Returns:
        Height of the numbers in inches.
    """
    places = []
    for i, target in enumerate(targets):
        axes.axhline(target, color=PALE, linewidth=0.8, zorder=0.5)
        places += [
            (x, found[line.hue, line.setting].colour) for line in lines if (x := line.first_x[i]) is not None
        ]
    texts = []
    for x, colour in sorted(places):
        axes.axvline(x, color=colour, linestyle=(0, (3, 2)), linewidth=0.8, zorder=1.5)
        shown = three_digits(x if load_up_to is None else in_load_unit(x, load_up_to))
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
    return _stack(axes, texts)


def _stack(axes: "Axes", texts: Sequence[object]) -> float:
    """Raise each of the texts, given from left to right, above those that it would overlap.

    Returns:
        Height of all of them in inches.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    ends: list[float] = []  # right ends of the texts on each level, in pixels
    for text in texts:
        box = text.get_window_extent()  # type: ignore[attr-defined]
        level = next((i for i, end in enumerate(ends) if box.x0 > end + 4), len(ends))
        ends[level:] = [box.x1, *ends[level + 1 :]]
        text.set_position((0, 1 + level * (TEXT_SIZE + 1)))  # type: ignore[attr-defined]
    return len(ends) * (TEXT_SIZE + 1) / 72


def _coincide(one: Line, other: Line) -> bool:
    """True if one line would cover the other: within half a percent of their height everywhere."""
    within = 0.005 * max(abs(value) for value in one.mean)
    return one.x == other.x and all(abs(a - b) <= within for a, b in zip(one.mean, other.mean, strict=True))
