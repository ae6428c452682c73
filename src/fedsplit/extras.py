"""Parts of the installation that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedsplit.errors import UserError

_EXTRAS = {
    **dict.fromkeys(("grpc", "grpc_health", "google", "cryptography"), "grpc"),
    **{"tensorboard": "tensorboard", "wandb": "wandb", "submitit": "slurm"},
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    **{"torchao": "pt2e", "openvino": "openvino"},
}
"""Which extra of the installation brings a package."""


@contextmanager
def extra(key: str, value: object) -> Iterator[None]:
    """While something is imported, or made, that needs what an extra brings.

    Args:
        key: what asked for it.
        value: of that key.

    Raises:
        UserError: a package of an extra is not installed.
    """
    try:
        yield
    except (ModuleNotFoundError, UserError) as error:
        package = next(filter(_EXTRAS.get, _missing(error)), None)
        if package is None:
            raise
        needs = f"needs {package}: pip install 'fedsplit[{_EXTRAS[package]}]'"
        raise UserError(key, value, needs) from error


def _missing(error: BaseException | None) -> Iterator[str]:
    """Packages that were not found, of an error and those that it came from."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            yield (error.name or "").partition(".")[0]
        error = error.__cause__
