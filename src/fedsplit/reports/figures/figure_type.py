"""Types of figures, how much each can hold, and a figure once it is drawn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from fedsplit.reports.figures.style import algorithm_looks, free_looks
from fedsplit.reports.figures.wording import telling
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = TypeVar("Data")
Part = TypeVar("Part")


Series: TypeAlias = tuple[str, str]
"""Identity of a series: the value that its colour stands for, and its other settings (may be empty)."""


@dataclass(frozen=True)
class SeriesLimits:
    """Largest numbers of colours and series that readers can tell apart in a figure.

    Args:
        series: number of series in all.
        settings: beside what colours stand for, where there is more than one colour.
    """

    series: int
    settings: int


class FigureType(ABC, Generic[Data]):
    """A frozen dataclass whose fields are the keys of an experiment that draws it, with their defaults.

    `by`, where there is one, is what colours and markers stand for and labels begin with: a group or a
    dotted key; `log` are the axes with a logarithmic scale.

    What is drawn is worked out first, as plain data, and then drawn.
    """

    summary: ClassVar[str]
    """One line that says what the figure shows."""
    limits: ClassVar[SeriesLimits] = SeriesLimits(series=10, settings=6)
    """Most series and settings that a reader can tell apart in it."""
    coloured: ClassVar[bool] = True
    """True if colours tell its parts apart; otherwise labels do."""

    @property
    def name(self) -> str:
        """Name of the file, where nobody gives one: as `roc`, or with what is drawn, as `accuracy-load`."""
        return type(self).__name__.lower()

    @abstractmethod
    def check(self, run: Run) -> None:
        """Look for what is drawn of a run.

        Raises:
            UserError: the run has not left it.
        """

    @abstractmethod
    def data(self, runs: Sequence[Run]) -> Data:
        """Data drawn from runs that pass `check`; of each setting and seed there must be one run.

        Raises:
            UserError: the runs do not fit together.
        """

    def within_limits(self, data: Sequence[Part]) -> tuple[list[Part], list[str]]:
        """The parts of the data that are drawn, and the labels of those that would be too many."""
        series = [self.series_of(each) for each in data]
        drawn = self.keep(series)
        left_out = [", ".join(filter(None, each)) for each in dict.fromkeys(series) if each not in drawn]
        return [part for part, each in zip(data, series, strict=True) if each in drawn], left_out

    def keep(self, series: Sequence[Series]) -> set[Series]:
        """The series, of those in the data, that a reader can tell apart in it."""
        return keep_first(series, self.limits)

    def series_of(self, part: Any) -> tuple[str, str]:
        """Identity of a part of the data: the value that its colour stands for, and its other settings."""
        return (part.hue, part.setting) if self.coloured else ("", part.label)

    @abstractmethod
    def draw(self, data: Data) -> "Figure":
        """Draw it.

        Raises:
            UserError: matplotlib is not installed, or there is more than can be told apart.
        """


def keep_first(series: Sequence[Series], limits: SeriesLimits) -> set[Series]:
    """The series to draw: those that differ in the fewest settings first, then in the order of the legend."""
    distinct = list(dict.fromkeys(series))
    several = len({hue for hue, _ in distinct}) > 1
    chosen: list[Series] = []
    for hue, setting in sorted(distinct, key=lambda each: len(telling(each[1]))):  # stable
        hues = list(dict.fromkeys([*(each for each, _ in chosen), hue]))
        settings = {other for _, other in chosen} | {setting}
        if (
            len(chosen) < limits.series
            and _have_colours(hues)
            and not (several and len(settings) > limits.settings)
        ):
            chosen.append((hue, setting))
    return set(chosen)


def _have_colours(hues: Sequence[str]) -> bool:
    return sum(hue not in algorithm_looks() for hue in hues) <= len(free_looks(hues))


@dataclass(frozen=True)
class RenderedFigure:
    """A figure of an experiment, whole in memory.

    Args:
        name: name of its files, without the ending.
        description: description of the figure in a sentence or two; may be empty.
        images: the content of its files, by format (`png`, `pdf`, `svg`).
        runs: runs that are drawn, and those of `left_out`.
        left_out: labels of what would be more than a reader can tell apart.
    """

    name: str
    title: str
    description: str
    images: Mapping[str, bytes]
    runs: Sequence[Run]
    left_out: Sequence[str] = ()
