"""Where the files are that this package comes with."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """What is called `name` beside `src` in a checkout, and inside the package that a wheel installs."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parents[1] / name
