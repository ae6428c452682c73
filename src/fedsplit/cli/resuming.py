"""How a run that was begun is gone on with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedsplit.config.commands import resume_command
from fedsplit.config.grammar import parsed
from fedsplit.files.paths import user_path
from fedsplit.tasks.running import go_on


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """While a run is at work in a directory: Ctrl-C says how to go on with what it has begun."""
    try:
        yield
    except KeyboardInterrupt as error:
        begun = (directory / "config.yaml").is_file()
        raise KeyboardInterrupt(*[resume_command(directory)] if begun else []) from error


def taken_out(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The directory that `resume=` names, None where it names none, and the other overrides.

    Raises:
        UserError: the directory is in quotes and cannot be read.
    """
    given = [each for each in overrides if each.startswith("resume=")]
    if not given or given[-1] == "resume=null":
        return None, list(overrides)
    path = given[-1].partition("=")[2]
    if path.startswith(("'", '"')):
        path = str(parsed(given[-1:])[0].value())
    return path, [each for each in overrides if each not in given]


def resume(given: str, overrides: Sequence[str]) -> Path:
    """Go on with the run in the directory `given`, with what may be changed; its path.

    Raises:
        UserError: there is no such run, or something may not be given anew.
        RunFailed: the run could not be carried to its end.
    """
    directory = user_path(given, "resume")
    changes = {override.key_or_group: override.value() for override in parsed(overrides)}
    with resumable(directory):
        go_on(directory, changes)
    return directory
