"""Reports of a run that cannot go on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from fedsplit.config.commands import resume_command
from fedsplit.errors import RunFailed, format_count

_LOG = logging.getLogger("fedsplit")


def report_failure(reason: str, directory: Path, *, t: int, saved: int) -> RunFailed:
    """Log the error of a run that failed, and return it.

    Args:
        reason: reason of the failure, in a few words.
        directory: directory of the run.
        t: number of the round in which it failed.
        saved: number of rounds in its newest checkpoint; 0 where there is none.
    """
    rounds = format_count(saved, "round")
    checkpoint_note = f"; the checkpoint after {rounds} is kept: {resume_command(directory)}" if saved else ""
    error = RunFailed(f"round {t}: {reason}{checkpoint_note}")
    _LOG.error("%s", error)
    return error


@contextmanager
def report_lack_of_room(report: Callable[[str], RunFailed], directory: Path) -> Iterator[None]:
    """Report in one line that memory is used up, or that files cannot be written.

    Args:
        report: function from a reason in a few words to an error.
        directory: directory in which files are written.

    Raises:
        RunFailed: there is no room in memory or on disk.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise report(f"{directory} cannot be written ({error})") from error
    except RuntimeError as error:
        # a GPU's allocator has an error of its own, the CPU's only these words
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            message = "out of memory; lower batch_size, num_clients or auxiliary.max_dataset_size"
            raise report(message) from error
        raise
