"""Paths of runs, as a reader takes them, and as a shell does."""

from pathlib import Path

from fedsplit.machine.commands import command


def shown(path: Path) -> Path:
    """Relative to the current directory, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def resume_command(directory: Path) -> str:
    """What goes on with the run in a directory, to be pasted into a shell."""
    return command(f"resume={shown(directory)}")
