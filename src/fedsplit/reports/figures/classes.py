"""Divisions of training sets over clients, drawn as bubbles."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from fedsplit.errors import format_count
from fedsplit.reports.figures.figure_type import FigureType, SeriesLimits
from fedsplit.reports.figures.style import TEXT_SIZE, blank_figure, tidy, wrap_label
from fedsplit.reports.figures.wording import in_words, pieces
from fedsplit.reports.runs import Run

if TYPE_CHECKING:  # matplotlib is optional and slow to import: only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedsplit.recording.class_counts import ClassCounts

MOST_CLIENTS = 200
"""Clients of a panel; of more, a sample is drawn."""
_COLOUR = "#0072B2"  # one colour and areas: nothing that needs to be told apart by its hue
_NAMED_CLASSES = 30  # more names than this would not be legible
_MARGIN = 0.1  # around the outermost bubbles, in cells
_SILENT = {"_target_", "attempts"}


@dataclass(frozen=True)
class Division:
    """Counts of the clients that are drawn, and what the division is called.

    Args:
        clients: all that there are.
    """

    label: str
    counts: "ClassCounts"
    clients: int


@dataclass(frozen=True)
class Classes(FigureType[Sequence[Division]]):
    """A panel for each division: clients across, classes up, areas of bubbles proportional to samples.

    Of more than 200 clients, 200 are drawn, evenly spaced among all.
    """

    summary: ClassVar = "how many samples of each class every client has"

    limits: ClassVar = SeriesLimits(series=8, settings=8)
    coloured: ClassVar = False

    @override
    def check(self, run: Run) -> None:
        from fedsplit.recording.class_counts import read_class_counts  # noqa: PLC0415  (imports numpy)

        read_class_counts(run.path)

    @override
    def data(self, runs: Sequence[Run]) -> list[Division]:
        """The different divisions that runs had, in the order of the runs."""
        from fedsplit.recording.class_counts import read_class_counts  # noqa: PLC0415  (imports numpy)

        titles: dict[ClassCounts, str] = {}
        for run in runs:
            titles.setdefault(read_class_counts(run.path), _title(run))
        times = Counter(titles.values())
        return [
            Division(
                title if times[title] == 1 else f"{title}, {_sizes(counts)}",
                counts.sample(MOST_CLIENTS),
                counts.clients,
            )
            for counts, title in titles.items()
        ]

    @override
    def draw(self, data: Sequence[Division]) -> "Figure":
        """Panels below each other, a column wide, or two where there are many clients."""
        width = 3.5 if max(each.counts.clients for each in data) <= 40 else 7.0
        heights = [0.9 + min(5.0, max(0.8, 0.15 * len(each.counts.classes))) for each in data]
        image = blank_figure(width, sum(heights))
        panels = image.subplots(len(data), squeeze=False, height_ratios=heights)[:, 0]
        for axes, each in zip(panels, data, strict=True):
            _draw(axes, each)
        image.draw_without_rendering()  # only now it is known how much room a cell has
        for axes, each in zip(panels, data, strict=True):
            _size(axes, each.counts)
        return image


def _draw(axes: "Axes", division: Division) -> None:
    counts = division.counts
    axes.scatter(counts.table[:, 0], counts.table[:, 1], color=_COLOUR, linewidths=0)
    axes.set_xlim(-0.5 - _MARGIN, counts.clients - 0.5 + _MARGIN)
    axes.set_ylim(-0.5 - _MARGIN, len(counts.classes) - 0.5 + _MARGIN)
    largest, sampled = int(counts.table[:, 2].max()), counts.clients < division.clients
    shown = f"{counts.clients} of {division.clients:,}, evenly spaced; " if sampled else ""
    width = int(12 * axes.get_figure().get_figwidth())  # type: ignore[union-attr]
    axes.set_title(wrap_label(", ".join(map(in_words, pieces(division.label))), width), fontsize=TEXT_SIZE)
    tidy(axes, f"Client ({shown}largest area: {largest:,} samples)", "Class")
    axes.locator_params(axis="x", integer=True)
    if len(counts.classes) <= _NAMED_CLASSES:
        axes.set_yticks(range(len(counts.classes)), counts.classes, fontsize=TEXT_SIZE)


def _size(axes: "Axes", counts: "ClassCounts") -> None:
    """Give the largest bubble the width of a cell."""
    box = axes.get_window_extent()
    points = 72 / axes.get_figure().dpi  # type: ignore[union-attr]
    cell = points * min(
        box.width / (counts.clients + 2 * _MARGIN), box.height / (len(counts.classes) + 2 * _MARGIN)
    )
    samples = counts.table[:, 2]
    axes.collections[0].set_sizes(cell**2 * samples / samples.max())  # type: ignore[attr-defined]


def _sizes(counts: "ClassCounts") -> str:
    return f"{format_count(counts.clients, 'client')}, {format_count(counts.samples, 'sample')}"


def _title(run: Run) -> str:
    own = run.inside("distribution")
    keys = {key.removeprefix("distribution."): value for key, value in own.items()}
    settings = [
        f"{key}={value}"
        for key, value in keys.items()
        if key not in _SILENT and value not in ("false", "null")
    ]
    chosen = [run.choices.get(group, group) for group in ("dataset", "distribution")]
    return ", ".join([*chosen, *settings, f"seed={run.seed}"])
