"""Commands of this package, written as the user who started this process can type them again."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedsplit.config.choices import FLAG, user_directory
from fedsplit.files.paths import display_path

_PACKAGE = Path(__file__).parents[1]
_NAMES_CODE = re.compile(r"\+*(?:[\w.]+\._target_|model\.auxiliary)=|trust=true$")
_SCRIPTS = {"fedsplit": "main.py", "fedsplit-plot": "plot_results.py"}
"""Scripts of a checkout, by the command that takes their place once the package is installed."""


def command(*arguments: str, name: Literal["fedsplit", "fedsplit-plot"] = "fedsplit") -> str:
    """A command to be pasted into a shell, with the directory of choices that this process has."""
    own = user_directory() if name == "fedsplit" else None
    flags = [] if own is None else [f"{FLAG}={display_path(own)}"]
    return " ".join([*_program(name), *map(shlex.quote, [*flags, *arguments])])


def resume_command(directory: Path) -> str:
    """Command that goes on with the run in a directory."""
    return command(f"resume={display_path(directory)}", *trust_overrides())


def compare_command(directory: Path, *overrides: str) -> str:
    """Command that compares precisions of the client model of the run in a directory."""
    return command("task=compare", f"run={display_path(directory)}", *overrides, *trust_overrides())


def trust_overrides() -> list[str]:
    """`trust=true` where the command of this process names code itself, which later commands run too.

    What only the files of a run name is no reason: they may be somebody else's.
    """
    return ["trust=true"] if any(map(_NAMES_CODE.match, sys.argv[1:])) else []


def _program(name: str) -> Sequence[str]:
    """`python main.py` in a checkout, `fedsplit` where it is installed, or `python -m fedsplit` as it was."""
    program = Path(sys.argv[0])
    if program == _PACKAGE / "__main__.py" and name == "fedsplit":
        return ("python", "-m", "fedsplit")
    checkout = _PACKAGE.parents[1]
    if program.stem in _SCRIPTS or not (checkout / _SCRIPTS[name]).is_file():
        return (name,)
    return ("python", _SCRIPTS[name])
