"""What a task is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from fedsplit.config.run_config import RunConfig


class Task(ABC):
    """One thing to do with a configuration.

    What a class says of itself is read from its source before anything heavy is imported: as literals.
    """

    beside: ClassVar[tuple[str, ...] | None] = None
    """Keys, and all below them, that may be given beside it; None allows all. Where it may take a run, only
    with `run=` others may not: they are the run's."""
    models_of_run: ClassVar[Literal["refused", "taken", "needed"]] = "taken"
    """Whether `run=` may name a run whose trained models it takes, or must."""
    swept: ClassVar[bool] = True
    """Whether it leaves a `results.json` in its directory, by which a sweep can collect it."""
    joins: ClassVar[bool] = False
    """Whether it takes part in a run of another machine, where the data set is chosen."""
    deploys: ClassVar[bool] = False
    """Whether `precision` names one or more precisions of deployed client models, not that of training."""
    counts_rounds: ClassVar[bool] = False
    """Whether it trains `rounds` rounds."""
    announces: ClassVar[str] = "{task}: {model} on {dataset}"
    """What a terminal shows at its start: names of groups in braces stand for their choices."""

    @abstractmethod
    def run(self, config: RunConfig, directory: Path) -> None:
        """Do it.

        Args:
            directory: where results go, if there are any; made only once nothing can be wrong any more.

        Raises:
            UserError: something asked for cannot be.
            RunFailed: the run could not be carried to its end.
        """
