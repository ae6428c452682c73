"""A figure of a client model at several precisions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsplit.reports.figures.style import blank_figure, log_axis
from fedsplit.tasks.compare.comparison import ComparedPrecision

if TYPE_CHECKING:  # matplotlib is optional and slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR, _REFERENCE_COLOUR = "#0072B2", "#666666"


def comparison_figure(rows: Sequence[ComparedPrecision]) -> "Figure":
    """A line a precision: accuracy lost, with twice its standard error, and what the rest of a row says.

    Args:
        rows: the reference first.

    Raises:
        UserError: matplotlib is not installed.
    """
    samples = list(rows[0].device.latency)
    few, many = samples[0], samples[-1]
    drawn = blank_figure(7.2, 0.9 + 0.24 * len(rows))
    panels: list[Axes] = list(drawn.subplots(1, 4, sharey=True))
    places = list(range(len(rows)))
    for axes in panels:
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7, length=2)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    loss, size, latency, sent = panels
    for place, row in zip(places, rows, strict=True):
        if row.drop is None:
            loss.axvline(0, color=_REFERENCE_COLOUR, linewidth=0.8)
            continue
        loss.errorbar(
            100 * row.drop.drop,
            place,
            xerr=200 * row.drop.standard_error,
            fmt="o",
            color=_COLOUR,
            markersize=3.5,
            elinewidth=1,
        )
    colours = [_REFERENCE_COLOUR if row.drop is None else _COLOUR for row in rows]
    size.barh(places, [row.file_bytes / 1e3 for row in rows], color=colours, height=0.6)
    sent.barh(places, [row.smashed_bytes / 1e6 for row in rows], color=colours, height=0.6)
    for number, marker, filled in ((few, "o", False), (many, "s", True)):
        latency.scatter(
            [1e3 * row.device.latency[number].median for row in rows],
            places,
            s=13,
            marker=marker,
            facecolors=colours if filled else "none",
            edgecolors=colours,
            linewidths=0.9,
        )
    if any(row.drop.drop > 0.05 for row in rows if row.drop is not None):
        # one that is lost altogether leaves room for what tells the others apart
        loss.set_xscale("symlog", linthresh=1)
        loss.set_xlim(right=130)
        loss.xaxis.set_major_formatter("{x:g}")
    latency.margins(x=0.12)
    log_axis(latency.xaxis, wide=100, separator=",")
    loss.set_yticks(places, [row.precision for row in rows])
    loss.set_ylim(len(rows) - 0.4, -0.6)
    alone = f"ms a run of {few}" if few == many else f"ms a run of {few} (○), {many} (■)"
    labels = ("accuracy lost, points ± 2 SE", "file, kB", alone, "smashed data of 1,000, MB")
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label, fontsize=7)
    return drawn
