"""What a task is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Task(ABC):
    """One thing to do with a configuration."""

    @abstractmethod
    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """Do it.

        Args:
            config: composed and checked (see `fedsplit.config.checks.check`), with the names of what was
                chosen under `choices`.
            directory: where results go, if there are any; made only once nothing can be wrong any more.

        Raises:
            UserError: something asked for cannot be.
            RunFailed: the run could not be carried to its end.
        """
