"""Reconstructions of a whole study in one figure: how near attackers came, by cut, defence and codec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fedsplit.errors import UserError
from fedsplit.files.bounded import number
from fedsplit.reports.figures.style import (
    INK,
    LABEL_SIZE,
    PALE,
    PALETTE,
    TEXT_SIZE,
    blank_figure,
    legend_below,
    tidy,
    wrap_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WAY = ("defence", "codec", "precision", "model", "mode")
_FLOOR = "mean"  # the attacker who knows nothing: its image is the mean of those that the others have
_LABELS, _PANEL, _ROW = 1.4, 2.8, 0.19  # inches: room for labels, and the sizes of a panel and of a row in it
_ROOM = 1.2  # widths of what is drawn, with that for numbers


@dataclass(frozen=True)
class Leak:
    """Nearness of reconstructions by one attacker behind one cut, in one way of sending.

    Args:
        way: in words: defence, codec, and what else differs between ways.
        psnr: in dB, the mean over jobs that differ in nothing but their seed.
        accuracy: accuracy of the server half on what it receives, likewise.
    """

    cut: str
    way: str
    attacker: str
    psnr: float
    accuracy: float


def leaks(rows: Sequence[Mapping[str, str]]) -> list[Leak]:
    """The leaks in rows that a sweep gathered, by way: defence by defence, and codec by codec.

    Args:
        rows: cells by column of `attack.csv`, after those of the job.

    Raises:
        UserError: a cell is missing, or holds no number where one must be.
    """
    try:
        return _leaks([row for row in rows if row.get("psnr")])
    except (KeyError, ValueError) as error:
        raise UserError("hydra.sweep.dir", "attack.csv", f"is damaged: {error}") from error


def _leaks(rows: Sequence[Mapping[str, str]]) -> list[Leak]:
    settings = (*_WAY, *_further(rows))
    differing = {
        key for key in settings if len({row[key] for row in rows}) > 1 or key in ("defence", "codec")
    }
    shown = [key for key in settings if key in differing]
    order = {key: list(dict.fromkeys(row[key] for row in rows)) for key in shown}
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in sorted(rows, key=lambda row: [order[key].index(row[key]) for key in shown]):
        way = ", ".join(_in_words(key, row[key]) for key in shown)
        groups.setdefault((row["cut"], way, _attacker(row)), []).append(row)
    return [
        Leak(
            *names,
            fmean(number(row["psnr"]) for row in group),
            fmean(number(row["test_accuracy"]) for row in group),
        )
        for names, group in groups.items()
    ]


def _further(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys of jobs, but the seed, in which rows of one cut and way differ."""
    found: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in ("cut", *_WAY)), []).append(row)
    keys = [] if not rows else list(rows[0])[: list(rows[0]).index("attacker")]
    return [
        key
        for key in keys
        if key not in ("job", "seed", *_WAY)
        and any(len({row[key] for row in group}) > 1 for group in found.values())
    ]


def _in_words(key: str, value: str) -> str:
    if key == "defence":
        return "no defence" if value == "none" else value
    if key == "codec":
        return "exact" if value == "none" else value.replace("_", " ")
    return value if key in _WAY else f"{key.rpartition('.')[2]} {value}"


def _attacker(row: Mapping[str, str]) -> str:
    unprepared = ", not adapted" if row["adapted"] == "False" else ""
    return f"{row['attacker']}{unprepared}"


def study_figure(rows: Sequence[Mapping[str, str]]) -> "Figure":
    """PSNR of reconstructions, the higher the more leaks: a panel for each cut, and a line for each way.

    A point is an attacker, a dashed line the mean image, and a number the accuracy that is left.

    Args:
        rows: as those of `leaks`.

    Raises:
        UserError: matplotlib is not installed; a cell is damaged; there is nothing to draw, or too much.
    """
    everything = leaks(rows)
    found = [leak for leak in everything if leak.attacker != _FLOOR]
    floors = {leak.cut: leak.psnr for leak in everything if leak.attacker == _FLOOR}
    attackers = list(dict.fromkeys(leak.attacker for leak in found))
    if not 0 < len(attackers) <= len(PALETTE):
        message = f"must be 1 to {len(PALETTE)} with reconstructions in a figure"
        raise UserError("task.attackers", ", ".join(attackers), message)
    cuts, ways = (list(dict.fromkeys(names)) for names in zip(*((e.cut, e.way) for e in found), strict=True))
    figure = blank_figure(_LABELS + _PANEL * len(cuts), 0.8 + _ROW * len(ways))
    row = figure.subplots(1, len(cuts), sharex=True, sharey=True, squeeze=False)[0]
    for axes, cut in zip(row, cuts, strict=True):
        _draw_cut(axes, [leak for leak in found if leak.cut == cut], ways, attackers)
        if cut in floors:
            axes.axvline(floors[cut], color=INK, linestyle=(0, (3, 2)), linewidth=0.8, zorder=1.5)
        axes.set_title(f"cut after {cut}", fontsize=LABEL_SIZE)
    row[0].set_yticks(range(len(ways)), [wrap_label(way, 34) for way in ways], fontsize=TEXT_SIZE)
    row[0].set_ylim(len(ways) - 0.4, -0.6)
    low = min([*floors.values(), *(leak.psnr for leak in found)]) - 1
    room = (max(leak.psnr for leak in found) - low) * _ROOM
    row[0].set_xlim(low, low + room)
    legend_below(figure, *_legend(attackers), "Numbers: test accuracy in %")
    return figure


def _draw_cut(axes: "Axes", found: Sequence[Leak], ways: Sequence[str], attackers: Sequence[str]) -> None:
    tidy(axes, "PSNR of reconstructions (dB)", "", grid="x")
    axes.tick_params(axis="y", length=0)
    first_of = [way.partition(",")[0] for way in ways]
    for place in range(1, len(ways)):
        if first_of[place] != first_of[place - 1]:
            axes.axhline(place - 0.5, color=PALE, linewidth=0.6, zorder=0.5)
    for attacker in attackers:
        colour, marker = PALETTE[attackers.index(attacker)]
        own = [leak for leak in found if leak.attacker == attacker]
        axes.plot(
            [leak.psnr for leak in own],
            [ways.index(leak.way) for leak in own],
            linestyle="",
            color=colour,
            marker=marker,
            markersize=5,
            markeredgewidth=0.5,
            markeredgecolor="white",
            zorder=3,
        )
    for way, accuracy in {leak.way: leak.accuracy for leak in found}.items():
        axes.annotate(
            f"{100 * accuracy:.1f}",
            (1, ways.index(way)),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=TEXT_SIZE,
            color=INK,
        )


def _legend(attackers: Sequence[str]) -> tuple[list[object], list[str]]:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles: list[object] = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5)
        for colour, marker in PALETTE[: len(attackers)]
    ]
    handles.append(Line2D([], [], color=INK, linestyle=(0, (3, 2)), linewidth=0.8))
    return handles, [*attackers, "mean image"]
