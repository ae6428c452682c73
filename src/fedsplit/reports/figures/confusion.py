"""Confusion matrices of final models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_rows, parse_whole_number, reading
from fedsplit.reports.figures.figure_type import FigureType, SeriesLimits
from fedsplit.reports.figures.groups import count_noun, over_seeds
from fedsplit.reports.figures.style import LABEL_SIZE, TEXT_SIZE, blank_figure, tidy, wrap_label
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CONFUSION = "confusion.csv"
_MOST_IN_A_COLUMN = 2  # more would be longer than a page
_NUMBERED_CLASSES = 12  # with more, percentages would not fit their cells
_NAMED_CLASSES = 30  # more names than this would not be legible
_CELL_TEXT_SIZE = 7  # three digits in a tenth of a column


@dataclass(frozen=True)
class Matrix:
    """Test images by true and by predicted class, of runs that differ only in their seed.

    Args:
        counts: a row for each true class, a cell for each predicted one; the sum over seeds.
    """

    label: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]

    @property
    def shares(self) -> list[list[float]]:
        """Cells as fractions of their rows; a row without images is 0."""
        return [[count / max(1, sum(row)) for count in row] for row in self.counts]


@dataclass(frozen=True)
class Confusion(FigureType[Sequence[Matrix]]):
    """Predictions for the images of each class, in percent of the class."""

    by: str = "algorithm"

    summary: ClassVar = "confusion matrix of the final model"

    limits: ClassVar = SeriesLimits(series=6, settings=6)
    coloured: ClassVar = False

    @override
    def check(self, run: Run) -> None:
        read_confusion(run.path)

    @override
    def data(self, runs: Sequence[Run]) -> list[Matrix]:
        return [_sum(group.label, group.runs) for group in over_seeds(runs, self.by)]

    @override
    def draw(self, data: Sequence[Matrix]) -> "Figure":
        """Panels below each other, a column wide or, where they are many, two; with one scale of colours."""
        columns = 1 if len(data) <= _MOST_IN_A_COLUMN else 2
        rows = -(-len(data) // columns)
        figure = blank_figure(3.5 * columns, 3.2 * rows + 0.45)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        texts = legend_texts([matrix.label for matrix in data])
        shown = [_draw(axes, matrix, text) for axes, matrix, text in zip(panels, data, texts, strict=False)]
        for axes in panels[len(data) :]:
            axes.set_visible(False)
        bar = figure.colorbar(shown[0], ax=panels, location="bottom", fraction=0.04 / rows, aspect=40)
        bar.set_label("Percent of the true class", fontsize=LABEL_SIZE)
        bar.ax.tick_params(labelsize=TEXT_SIZE)
        bar.outline.set_visible(False)
        return figure


def read_confusion(run: Path) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Class names and counts that a run left in `confusion.csv`: a row for each true class.

    Raises:
        UserError: it left none, or the file is damaged.
    """
    with reading(run, CONFUSION, "only runs that have ended do"):
        (_, *classes), *rows = (row for _, row in csv_rows(run / CONFUSION))
        counts = tuple(tuple(map(parse_whole_number, row[1:])) for row in rows)
    square = bool(classes) and {len(row) for row in counts} == {len(classes)} == {len(counts)}
    if not square:
        raise UserError("run", run, f"{CONFUSION} must not be damaged")
    return tuple(classes), counts


def _sum(label: str, runs: Sequence[Run]) -> Matrix:
    found = [read_confusion(run.path) for run in runs]
    classes = found[0][0]
    for run, (other, _) in zip(runs, found, strict=True):
        if other != classes:
            raise UserError("run", run.path, f"must have the classes of {runs[0].path}")
    rows = zip(*(counts for _, counts in found), strict=True)
    summed = tuple(tuple(map(sum, zip(*row, strict=True))) for row in rows)
    return Matrix(label, classes, summed, tuple(run.seed for run in runs))


def _draw(axes: "Axes", matrix: Matrix, text: str) -> "AxesImage":
    shares = matrix.shares
    shown = axes.imshow([[100 * share for share in row] for row in shares], cmap="Blues", vmin=0, vmax=100)
    tidy(axes, "Predicted class", "True class", grid="none")
    axes.spines[:].set_visible(False)
    seeds = f", {count_noun(len(matrix.seeds), 'seed')}" if len(matrix.seeds) > 1 else ""
    axes.set_title(wrap_label(f"{text}{seeds}", 40), fontsize=TEXT_SIZE)
    classes = range(len(matrix.classes))
    if len(classes) <= _NAMED_CLASSES:
        long = max(map(len, matrix.classes)) > 2
        axes.set_xticks(classes, matrix.classes, rotation=90 if long else 0)
        axes.set_yticks(classes, matrix.classes)
    axes.tick_params(length=0)
    if len(classes) <= _NUMBERED_CLASSES:
        for i in classes:
            for j in classes:
                if matrix.counts[i][j]:
                    axes.text(
                        j,
                        i,
                        f"{100 * shares[i][j]:.0f}" if shares[i][j] >= 0.005 else "<1",
                        ha="center",
                        va="center",
                        fontsize=_CELL_TEXT_SIZE,
                        color="white" if shares[i][j] > 0.5 else "black",
                    )
    return shown
