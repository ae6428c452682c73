"""Paths of runs, as a reader takes them."""

from pathlib import Path


def shown(path: Path) -> Path:
    """Relative to the current directory, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
