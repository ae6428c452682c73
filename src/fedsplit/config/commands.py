"""Commands of this program, as they are pasted into a shell."""

import shlex
from pathlib import Path

from fedsplit.config.choices import FLAG, own_directory
from fedsplit.files.shown_path import shown


def command(*arguments: str) -> str:
    """A command with these arguments, and with the directory of choices of one's own that this one has."""
    own = own_directory()
    flags = [] if own is None else [f"{FLAG}={shown(own)}"]
    return shlex.join(["python", "main.py", *flags, *arguments])


def resume_command(directory: Path) -> str:
    """What goes on with the run in a directory."""
    return command(f"resume={shown(directory)}")
