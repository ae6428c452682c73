"""The house style: what all figures look like, for one column of a paper, and how they become files."""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from math import floor, log10
from textwrap import fill, wrap
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fedsplit.config.traits import algorithm_traits
from fedsplit.errors import UserError
from fedsplit.machine.extras import install_command
from fedsplit.reports.figures.wording import pieces

if TYPE_CHECKING:  # matplotlib is optional and slow to import: only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

FORMATS = ("png", "pdf", "svg")
LABEL_SIZE, TEXT_SIZE = 9, 8
GRID, PALE, INK = "#DDDDDD", "#999999", "#444444"

# The palette of Okabe and Ito, "Color Universal Design", 2008, without its yellow (too pale for a line).
PALETTE = (
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#D55E00", "v"),
    ("#000000", "X"),
    ("#56B4E9", "P"),
    ("#7F7F7F", "h"),
)
"""Colours and markers of the first algorithms, and of all that is told apart where no algorithm is."""
# Most are of the schemes "muted" and "vibrant" of Paul Tol, "Colour Schemes", 2021.
_FURTHER = (
    ("#332288", "D"),
    ("#999933", "v"),
    ("#882255", "X"),
    ("#44AA99", "P"),
    ("#CC6677", "h"),
    ("#117733", "<"),
    ("#AA4499", ">"),
    ("#661100", "^"),
    ("#EE3377", "p"),
    ("#BBCC33", "d"),
    ("#6699CC", "s"),
    ("#AA7744", "o"),
)
_PAIRS = (*PALETTE, *_FURTHER)
_LOOKS = 2 * len(_PAIRS)
"""Number of pairs of a colour and a marker in a figure of algorithms, where each colour is used twice."""
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#000000")
"""Colours of areas, which stand for no algorithm."""
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_IN_FILES = {"svg.hashsalt": "fedsplit", "pdf.fonttype": 42, "svg.fonttype": "path"}
_Fill: TypeAlias = Literal["full", "none", "left", "bottom", "right", "top"]
FILLS: tuple[_Fill, ...] = ("full", "none", "left", "bottom", "right", "top")
"""Fill styles of markers, which go with `DASHES`."""
_LEGEND_SHARE = 0.98  # share of a figure's width
_MOST_ON_LOAD_AXIS_IN_MB = 10_000
_WIDE = 300  # greatest over least, from which on a logarithmic axis has ticks at powers of ten only


@cache
def algorithm_looks() -> dict[str, tuple[str, str]]:
    """Colour and marker of each algorithm that has a place, in their order; the same in every figure."""
    places = {name: each.place for name, each in algorithm_traits().items() if each.place is not None}
    return {name: _look(place) for name, place in places.items() if place < _LOOKS}


def _look(place: int) -> tuple[str, str]:
    turn, number = divmod(place, len(_PAIRS))
    return _PAIRS[number][0], _PAIRS[(number + 6 * turn) % len(_PAIRS)][1]  # by 6 no colour meets its marker


def free_looks(hues: Collection[str]) -> list[tuple[str, str]]:
    """Looks for series without one of their own, beside these; the palette where no placed algorithm is."""
    known = algorithm_looks()
    if known.keys() & set(hues):
        return [look for look in map(_look, range(_LOOKS)) if look not in known.values()]
    return [*PALETTE[5:], *PALETTE[:5]]  # those first that the older algorithms do not have


def appearance(hues: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each that colours tell apart; `UserError` where they are more than can be."""
    distinct = list(dict.fromkeys(hues))
    known, free = algorithm_looks(), free_looks(distinct)
    others = [hue for hue in distinct if hue not in known]
    if len(others) > len(free):
        beside = f" beside {', '.join(known)}" if len(others) < len(distinct) else ""
        raise UserError("colours", ", ".join(others), f"must be at most {len(free)} in a figure{beside}")
    return known | dict(zip(others, free, strict=False))


def dashes(settings: Iterable[str]) -> dict[str, str | tuple[float, tuple[float, ...]]]:
    """A dash pattern for each setting, in their order; `UserError` where they are more than there are."""
    distinct = list(dict.fromkeys(settings))
    if len(distinct) > len(DASHES):
        raise UserError("settings", "; ".join(distinct), f"must be at most {len(DASHES)} in a figure")
    return dict(zip(distinct, DASHES, strict=False))


@contextmanager
def house_style() -> Iterator[None]:
    """Reset matplotlib to its published settings while figures are made, whatever the user has set.

    No text is mathematics, as nothing in these figures is, and names may hold dollars.

    Raises:
        UserError: matplotlib is not installed, or cannot be imported here.
    """
    matplotlib = _matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False} | _IN_FILES)
        yield


def _matplotlib() -> ModuleType:
    """matplotlib, imported where nothing that the user has set can make that fail, or say something.

    Raises:
        UserError: it is not installed, or its settings are no text.
    """
    log, backend = logging.getLogger("matplotlib"), os.environ.pop("MPLBACKEND", None)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"needed to draw figures: {install_command('plot')}"
        raise UserError("matplotlib", "missing", message) from error
    except (ValueError, OSError) as error:
        raise UserError("matplotlib", "matplotlibrc", "must be a text file that can be read") from error
    finally:
        log.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


@dataclass(frozen=True)
class Look:
    """Look of a series, which tells it apart also without its colour."""

    colour: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]
    fill: _Fill

    @property
    def of_markers(self) -> dict[str, Any]:
        """Settings of its markers for matplotlib."""
        return {
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markeredgecolor": self.colour,
        }


def looks(series: Sequence[tuple[str, str]], order: Callable[[str], Any]) -> dict[tuple[str, str], Look]:
    """A look for each series: colour and marker stand for its first part, dashes and filling for the other.

    Where all have the same first part, colour, marker and dashes stand for the other.

    Args:
        series: values that colours stand for, and the other settings.
        order: sort key of settings.

    Raises:
        UserError: more of them than can be told apart.
    """
    distinct = list(dict.fromkeys(series))
    settings = sorted({setting for _, setting in distinct}, key=order)
    if len({hue for hue, _ in distinct}) == 1 and len(settings) > 1:
        return {
            each: Look(
                *PALETTE[i % len(PALETTE)], DASHES[i % len(DASHES)], "none" if i >= len(PALETTE) else "full"
            )
            for i, each in enumerate(sorted(distinct, key=lambda each: order(each[1])))
        }
    own, patterns = appearance(hue for hue, _ in distinct), dashes(settings)
    fills = dict(zip(settings, FILLS, strict=False))
    return {(hue, setting): Look(*own[hue], patterns[setting], fills[setting]) for hue, setting in distinct}


def blank_figure(width: float, height: float) -> "Figure":
    """A figure without anything in it, of so many inches; `UserError` where matplotlib is not installed."""
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    blank = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(blank)
    return blank


def tidy(axes: "Axes", x: str, y: str, *, grid: str = "both") -> None:
    """Name the axes, and give them the house's ticks, grid (`x`, `y`, `both` or `none`) and frame."""
    axes.set_xlabel(x, fontsize=LABEL_SIZE)
    axes.set_ylabel(y, fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TEXT_SIZE)
    if grid != "none":
        axes.grid(axis=grid, color=GRID, linewidth=0.5)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def log_axis(axis: "Axis", *, wide: float = _WIDE, separator: str = "") -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5, or where that is too many only at 1.

    Within a power of ten there is one at 3, too.

    Args:
        axis: axis that has its data.
        wide: greatest over least from which on that is too many.
        separator: separator of thousands.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    axis._set_axes_scale("log")  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 3.0, 5.0) if high / low < 10 else (1.0, 2.0, 5.0) if high / low < wide else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:{separator}g}"))
    axis.set_minor_formatter(NullFormatter())


def load_axis(axis: "Axis", largest: float, name: str = "Communication load") -> None:
    """Label an axis of megabytes; in gigabytes (10^9 bytes) where numbers would grow long."""
    from matplotlib.ticker import FuncFormatter  # noqa: PLC0415

    unit = "MB"
    if largest > _MOST_ON_LOAD_AXIS_IN_MB:
        unit = "GB"
        axis.set_major_formatter(FuncFormatter(lambda megabytes, _: f"{megabytes / 1000:g}"))
    axis.set_label_text(f"{name} ({unit})", fontsize=LABEL_SIZE)


def in_load_unit(megabytes: float, largest: float) -> float:
    """A load in the unit of an axis that goes up to `largest` megabytes."""
    return megabytes / 1000 if largest > _MOST_ON_LOAD_AXIS_IN_MB else megabytes


def three_digits(number: float) -> str:
    """A number with three significant digits, none after the point where three are before it."""
    before = floor(log10(abs(number))) + 1 if number else 1
    return f"{number:.{min(2, max(0, 3 - before))}f}"


def legend_below(
    figure: "Figure", handles: Sequence[Any], labels: Sequence[str], title: str | None = None
) -> "Legend":
    """A legend below all else, in as many columns as fit; the figure grows by its height.

    No entry is wider than the figure: long ones are broken, between their pieces where they can be.
    """
    room = figure.bbox.width * _LEGEND_SHARE
    for columns, characters in ((3, 44), (2, 44), (1, 44), (1, 38), (1, 32), (1, 26), (1, 20)):
        legend = figure.legend(
            handles,
            [wrap_label(label, characters) for label in labels],
            loc="outside lower center",
            ncols=columns,
            title=None if title is None else fill(title, 50),
            fontsize=TEXT_SIZE,
            title_fontsize=TEXT_SIZE,
            frameon=False,
            handlelength=2.8,
            columnspacing=1.0,
            borderpad=0.1,
            labelspacing=0.3,
        )
        extent = legend.get_window_extent()
        if extent.width <= room or characters == 20:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
    return legend


def wrap_label(label: str, width: int = 44) -> str:
    """Wrap a label into lines of at most so many characters, broken between its pieces.

    A piece that is longer than a line is broken between its words, and a longer word anywhere.
    """
    lines: list[str] = []
    for piece in pieces(label.encode("utf-8", "backslashreplace").decode()):  # a file's name may be no text
        parts = _break_lines(piece, width)
        if lines and len(parts) == 1 and len(lines[-1]) + 2 + len(parts[0]) < width:
            lines[-1] += f", {parts[0]}"
        else:
            if lines:
                lines[-1] += ","
            lines += parts
    return "\n".join(line.replace(" ", "\N{NO-BREAK SPACE}") for line in lines)


def _break_lines(piece: str, width: int) -> list[str]:
    return wrap(piece, width - 1, break_on_hyphens=False) if len(piece) > width - 1 else [piece]


def encode_figure(figure: "Figure", format: str) -> bytes:
    """Encode a figure as an image file: the same bytes for the same figure; text in a PDF stays text."""
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    image = BytesIO()
    with _matplotlib().rc_context(_IN_FILES):
        figure.savefig(image, format=format, metadata=undated[format])
    return image.getvalue()
