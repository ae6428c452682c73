"""How a run that cannot go on says so."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from fedsplit.config.commands import resume_command
from fedsplit.errors import RunFailed

_LOG = logging.getLogger("fedsplit")


def run_failed(what: str, directory: Path, *, t: int, saved: int) -> RunFailed:
    """The error of a run that failed, which is logged here too.

    Args:
        what: happened.
        directory: of the run.
        t: the round in which it failed.
        saved: rounds in its newest checkpoint; 0 where there is none.
    """
    kept = f"; the checkpoint after {saved} rounds is kept: {resume_command(directory)}" if saved else ""
    failed = RunFailed(f"round {t}: {what}{kept}")
    _LOG.error("%s", failed)
    return failed


@contextmanager
def no_room_told(failed: Callable[[str], RunFailed], directory: Path) -> Iterator[None]:
    """Tell of memory that is used up, and of files that cannot be written, in one line.

    Args:
        failed: makes an error of a few words.
        directory: in which files are written.

    Raises:
        RunFailed: there is no room in memory or on disk.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise failed(f"{directory} cannot be written ({error})") from error
    except RuntimeError as error:
        # a GPU's allocator has an error of its own, the CPU's only these words
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            message = "out of memory; lower batch_size, num_clients or auxiliary.max_dataset_size"
            raise failed(message) from error
        raise
