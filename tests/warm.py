"""The process that forks for tests: it imports once what commands need, which costs seconds each time."""

import atexit
import os
import signal
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from fedsplit.config.choices import OWN_CHOICES
from fedsplit.processes.forker import Fork, Forker


@cache
def warm_forker() -> Forker:
    """The one of this process."""
    forker = Forker(_import_what_commands_need, "runs commands")
    atexit.register(forker.close)
    return forker


def _import_what_commands_need() -> None:
    import matplotlib.figure  # noqa: F401, PLC0415
    import torch._dynamo  # noqa: F401, PLC0415

    import fedsplit.training.experiment  # noqa: F401, PLC0415
    from fedsplit.config.compose import composed, composing, run_config  # noqa: PLC0415

    overrides = ["rounds=1", "algorithm=fed_avg", "hydra.run.dir=/a-b/c_d.e", "codec@quant.smashed=none"]
    with (
        composing()
    ):  # what Hydra imports, reads and learns of its grammar for the first, it has for all others
        run_config(composed(overrides))


def _with_choices(directory: str | None, call: Callable[[], object]) -> object:
    """What a process started here does, which would have our environment."""
    os.environ.pop(OWN_CHOICES, None)
    if directory is not None:
        os.environ[OWN_CHOICES] = directory
    return call()


class Borrowed(Forker):
    """The one of all tests, in place of one of its own: closing it ends the forks that it was asked for."""

    def __init__(self, *_: object) -> None:
        self._own: list[Fork] = []
        self.alive = True

    def start(self, call: Callable[[], object], log: Path, errors: Path | None = None) -> Fork:
        inherited = partial(_with_choices, os.environ.get(OWN_CHOICES), call)
        self._own.append(warm_forker().start(inherited, log, errors))
        return self._own[-1]

    def close(self) -> None:
        for fork in self._own:
            fork.send(signal.SIGKILL)
            fork.ended.result()
