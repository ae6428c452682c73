"""What is said where a file that a run left cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsplit.errors import UserError


@contextmanager
def reading(run: Path, name: str, hint: str) -> Iterator[None]:
    """While a file in a run's directory is read.

    Args:
        hint: which runs have it.

    Raises:
        UserError: it is not there, cannot be read, or is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("run", run, f"must hold {name}; {hint}") from error
    except OSError as error:
        raise UserError("run", run, f"must be readable ({error.strerror})") from error
    except (ValueError, KeyError) as error:
        raise UserError("run", run, f"{name} must not be damaged ({error})") from error
