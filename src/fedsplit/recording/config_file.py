"""`config.yaml` of a run's directory: its configuration, and the number of the form that a run leaves."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from fedsplit.config.choices import user_directory
from fedsplit.config.values import Plain
from fedsplit.errors import UserError, shorten
from fedsplit.files.bounded import Damage, yaml_in
from fedsplit.files.paths import display_path
from fedsplit.files.whole import write_yaml

CONFIG_FILE = "config.yaml"
FORMAT = 2
"""Another one where keys come, go or mean something else."""
_OWN_CHOICES = "config_dir"


class OtherFormat(UserError):
    """A run that another version left."""


def write_config(directory: Path, config: Mapping[str, object]) -> None:
    """Write the file, whole or not at all."""
    own = user_directory()
    named = {} if own is None else {_OWN_CHOICES: str(own)}
    write_yaml(directory / CONFIG_FILE, {"format": FORMAT, **named, **config})


def read_config(directory: Path, key: str) -> Plain:
    """Content that `write_config` wrote, plain; `choices` maps groups to names of choices or null.

    Raises:
        OtherFormat: the number of its form is another one, or missing.
        UserError: the file cannot be read, is damaged, or not that of a run.
    """
    try:
        content = yaml_in(directory / CONFIG_FILE)
    except OSError as error:
        raise UserError(key, directory, f"its {CONFIG_FILE} cannot be read ({error.strerror})") from error
    except Damage as error:
        raise UserError(key, directory, f"its {CONFIG_FILE} is damaged ({error})") from error
    if isinstance(content, dict) and content.get("format") != FORMAT:
        found = f"format {shorten(repr(content['format']))}" if "format" in content else "no format number"
        raise OtherFormat(key, directory, f"its {CONFIG_FILE} has {found}; this version reads {FORMAT}")
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, dict) or not all(
        isinstance(group, str) and isinstance(choice, str | None) for group, choice in choices.items()
    ):
        message = f"its {CONFIG_FILE} is not that of a run: choices must name what was chosen of each group"
        raise UserError(key, directory, message)
    return {name: value for name, value in content.items() if name not in ("format", _OWN_CHOICES)}


def own_choices_of(directory: Path) -> str | None:
    """Directory of the user's choices, as a run's file names it: shown in errors, and never opened."""
    try:
        content = yaml_in(directory / CONFIG_FILE)
    except (OSError, Damage):
        return None
    found = content.get(_OWN_CHOICES) if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


_NAMED = 3
"""Most runs that an error names."""
_SEARCHED = 10_000
"""Most folders that runs are looked for in: a mistyped path may be that of a whole disk."""


def runs_below(path: Path) -> str:
    """Continuation of an error on a directory that is no run: the newest runs below it; empty without any."""
    below = {found: (found / CONFIG_FILE).stat().st_mtime for found in _directories_of_runs(path)}
    if not below:
        return ""
    newest = [str(display_path(each)) for each in sorted(below, key=lambda each: -below[each])[:_NAMED]]
    more = f"; the newest of {len(below)}" if len(below) > len(newest) else ""
    return f"; runs below it are {', '.join(newest)}{more}"


def _directories_of_runs(path: Path) -> Iterator[Path]:
    for folder, below, files in islice(os.walk(path), _SEARCHED):
        if CONFIG_FILE in files and Path(folder, CONFIG_FILE).is_file():
            below.clear()  # no run is inside another
            yield Path(folder)
