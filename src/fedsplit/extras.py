"""Parts of the installation that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedsplit.errors import UserError

_EXTRAS = {
    "grpc": "grpc",
    "grpc_health": "grpc",
    "google": "grpc",
    "cryptography": "grpc",
    "submitit": "slurm",
}
"""Which extra of the installation brings a package."""


@contextmanager
def extra(key: str, value: object) -> Iterator[None]:
    """While something is imported that an extra brings.

    Args:
        key: what asked for it.
        value: of that key.

    Raises:
        UserError: a package of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        needs = f"needs {package}: pip install 'fedsplit[{_EXTRAS[package]}]'"
        raise UserError(key, value, needs) from error
