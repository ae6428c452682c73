"""What a type of figure is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from fedsplit.reports.figures.limits import Limits, keep_first
from fedsplit.reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = TypeVar("Data")
Part = TypeVar("Part")


class FigureType(ABC, Generic[Data]):
    """A frozen dataclass whose fields are the keys of an experiment that draws it, with their defaults.

    What is drawn is worked out first, as plain data, and then drawn.
    """

    summary: ClassVar[str]
    """What is drawn, in a line."""
    limits: ClassVar[Limits] = Limits(series=10, settings=6)
    """What can be told apart in it."""

    @property
    def name(self) -> str:
        """Of the file, where nobody names it: as `roc`, or with what is drawn, as `accuracy-load`."""
        return type(self).__name__.lower()

    @abstractmethod
    def check(self, run: Run) -> None:
        """Look for what is drawn of a run.

        Raises:
            UserError: the run has not left it.
        """

    @abstractmethod
    def data(self, runs: Sequence[Run]) -> Data:
        """What is drawn of runs that pass `check`; of each setting and seed there must be one.

        Raises:
            UserError: the runs do not fit together.
        """

    def within_limits(self, data: Sequence[Part]) -> tuple[list[Part], list[str]]:
        """The parts of the data that are drawn, and the labels of those that would be too many."""
        series = [self.series_of(each) for each in data]
        drawn = keep_first(series, self.limits)
        left_out = [", ".join(filter(None, each)) for each in dict.fromkeys(series) if each not in drawn]
        return [part for part, each in zip(data, series, strict=True) if each in drawn], left_out

    def series_of(self, part: Any) -> tuple[str, str]:
        """What a part of the data is told apart by: what its colour stands for, and its other settings."""
        return part.hue, part.setting

    @abstractmethod
    def draw(self, data: Data) -> "Figure":
        """Draw it.

        Raises:
            UserError: matplotlib is not installed, or there is more than can be told apart.
        """
