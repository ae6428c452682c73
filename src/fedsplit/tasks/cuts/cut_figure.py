"""A figure of cuts: load a round against what a client computes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsplit.reports.figures.style import appearance, blank_figure, legend_below, log_axis, tidy
from fedsplit.tasks.cuts.costs import CutCosts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cut_figure(cuts: Sequence[CutCosts]) -> "Figure":
    """A line an algorithm through numbered stages, a dot for other cuts; `UserError` without matplotlib."""
    drawn = blank_figure(3.5, 3.0)
    axes = drawn.add_subplot()
    stages = sorted((cut for cut in cuts if cut.stage is not None), key=lambda cut: cut.stage or 0)
    others = [cut for cut in cuts if cut.stage is None]
    lines = []
    for name, colour, marker, label in _series(cuts):
        axes.plot(
            [cut.client_macs / 1e6 for cut in others],
            [cut.load[name] / 1e6 for cut in others],
            linestyle="",
            marker=marker,
            markersize=2.2,
            markeredgewidth=0,
            color=colour,
            alpha=0.45,
        )
        (line,) = axes.plot(
            [cut.client_macs / 1e6 for cut in stages],
            [cut.load[name] / 1e6 for cut in stages],
            label=label,
            color=colour,
            marker=marker,
            markersize=4.5,
            markeredgewidth=0,
            linewidth=1.3,
        )
        lines.append(line)
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, wide=100, separator=",")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.6, high)
    for cut in stages:
        axes.annotate(
            str(cut.stage),
            (cut.client_macs / 1e6, min(cut.load.values()) / 1e6),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )
    tidy(axes, "Client's forward multiply-adds a sample (millions)", "Load a round (MB)")
    title = "Numbers: stages; small: other cuts" if others else "Numbers: stages"
    legend_below(drawn, lines, [str(line.get_label()) for line in lines], title)
    return drawn


def _series(cuts: Sequence[CutCosts]) -> list[tuple[str, str, str, str]]:
    """Name, colour, marker and label of each line: those that load the same at every cut share one."""
    names: dict[tuple[float, ...], list[str]] = {}
    for name in cuts[0].load:
        names.setdefault(tuple(cut.load[name] for cut in cuts), []).append(name)
    looks = appearance([alike[0] for alike in names.values()])
    return [(alike[0], *looks[alike[0]], ", ".join(alike)) for alike in names.values()]
