"""What a type of figure is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from fedsplit.results.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = TypeVar("Data")


class FigureType(ABC, Generic[Data]):
    """A frozen dataclass whose fields are the keys of an experiment that draws it, with their defaults.

    What is drawn is worked out first, as plain data, and then drawn.
    """

    summary: ClassVar[str]
    """What is drawn, in a line."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the file, where nobody names it."""

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

    @abstractmethod
    def draw(self, data: Data) -> "Figure":
        """Draw it.

        Raises:
            UserError: matplotlib is not installed, or there is more than can be told apart.
        """
