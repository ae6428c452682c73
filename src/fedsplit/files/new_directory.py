"""A directory for what is new; light to import."""

from pathlib import Path

from fedsplit.errors import UserError


def new_directory(path: Path, key: str) -> None:
    """Make a directory for a new run or sweep; `key` is what named it.

    Raises:
        UserError: there is a run in it already, or it cannot be made.
    """
    if any(path.glob("config.yaml")) or any(path.glob("*/config.yaml")) or any(path.glob("checkpoint")):
        raise UserError(key, path, f"holds a run already; resume={path} goes on with one")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(key, path, f"cannot be made ({error.strerror})") from error
