"""The house style: what all figures look like, for one column of a paper, and how they become files."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from math import floor, log10
from textwrap import fill
from typing import TYPE_CHECKING, Any

from fedsplit.errors import UserError
from fedsplit.extras import install_command

if TYPE_CHECKING:  # matplotlib is optional and slow to import: only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

FORMATS = ("png", "pdf", "svg")
COLUMN = 3.5
"""Inches: the width of a column of a paper, in which text of these points is as it is set there."""
LABEL_SIZE, TEXT_SIZE = 9, 8
GRID, PALE, INK = "#DDDDDD", "#999999", "#444444"

# The palette of Okabe and Ito, "Color Universal Design", 2008, without its yellow (too pale for a line).
APPEARANCE: dict[str, tuple[str, str]] = {
    "fed_avg": ("#0072B2", "o"),
    "splitfed_v1": ("#E69F00", "s"),
    "splitfed_v2": ("#009E73", "^"),
    "cse_fsl": ("#CC79A7", "D"),
    "fsl_sage": ("#D55E00", "v"),
}
"""Colour and marker of each algorithm, in the order of drawing; the same in every figure."""
OTHER_APPEARANCE = (("#000000", "X"), ("#56B4E9", "P"), ("#7F7F7F", "h"))
"""Of algorithms of one's own, and of all else that is told apart by colour (then followed by the above)."""
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#000000")
"""Of areas, which stand for no algorithm."""
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_MOST_ON_LOAD_AXIS_IN_MB = 10_000
_WIDE = 300  # greatest over least, from which on a logarithmic axis has ticks at powers of ten only


def appearance(hues: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker for each of what is told apart by colour.

    Raises:
        UserError: more of them than can be told apart.
    """
    distinct = list(dict.fromkeys(hues))
    others = [hue for hue in distinct if hue not in APPEARANCE]
    free = OTHER_APPEARANCE + (() if len(others) < len(distinct) else tuple(APPEARANCE.values()))
    if len(others) > len(free):
        beside = f" beside {', '.join(APPEARANCE)}" if len(others) < len(distinct) else ""
        raise UserError("colours", ", ".join(others), f"at most {len(free)} in a figure{beside}")
    return APPEARANCE | dict(zip(others, free, strict=False))


def dashes(settings: Iterable[str]) -> dict[str, str | tuple[float, tuple[float, ...]]]:
    """A dash pattern for each setting, in their order.

    Raises:
        UserError: more of them than can be told apart.
    """
    distinct = list(dict.fromkeys(settings))
    if len(distinct) > len(DASHES):
        raise UserError("settings", "; ".join(distinct), f"at most {len(DASHES)} in a figure")
    return dict(zip(distinct, DASHES, strict=False))


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
            "matplotlib", "missing", f"needed to draw figures: {install_command('plot')}"
        ) from error
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


def log_axis(axis: "Axis") -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5, or where that is too many only at 1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    axis._set_axes_scale("log")  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < _WIDE else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
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
    """A legend below all else, in as many columns as fit; the figure grows by its height."""
    for columns in (3, 2, 1):
        legend = figure.legend(
            handles,
            [wrapped(label) for label in labels],
            loc="outside lower center",
            ncols=columns,
            title=title,
            fontsize=TEXT_SIZE,
            title_fontsize=TEXT_SIZE,
            frameon=False,
            handlelength=2.8,
            columnspacing=1.0,
            borderpad=0.1,
            labelspacing=0.3,
        )
        extent = legend.get_window_extent()
        if extent.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
    return legend


def wrapped(label: str, width: int = 44) -> str:
    """A label in lines of at most so many characters, broken only between its pieces."""
    pieces = label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return fill(pieces, width, break_on_hyphens=False, break_long_words=False)


def encoded(figure: "Figure", format: str) -> bytes:
    """The content of an image file: the same bytes for the same figure; text in a PDF stays text."""
    from matplotlib import rc_context  # noqa: PLC0415

    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    image = BytesIO()
    with rc_context({"svg.hashsalt": "fedsplit", "pdf.fonttype": 42, "svg.fonttype": "path"}):
        figure.savefig(image, format=format, metadata=undated[format])
    return image.getvalue()
