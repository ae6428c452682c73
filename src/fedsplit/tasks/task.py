"""What a task is."""

from abc import ABC, abstractmethod
from pathlib import Path

from fedsplit.config.run_config import RunConfig


class Task(ABC):
    """One thing to do with a configuration."""

    @abstractmethod
    def run(self, config: RunConfig, directory: Path) -> None:
        """Do it.

        Args:
            config: of the command.
            directory: where results go, if there are any; made only once nothing can be wrong any more.

        Raises:
            UserError: something asked for cannot be.
            RunFailed: the run could not be carried to its end.
        """
