"""Parts of the installation that not everybody needs."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsplit.errors import UserError

_EXTRAS = {
    **dict.fromkeys(("grpc", "grpc_health", "google", "cryptography"), "grpc"),
    **{"tensorboard": "tensorboard", "wandb": "wandb", "submitit": "slurm", "ray": "ray"},
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    **{"torchao": "pt2e", "openvino": "openvino"},
    **dict.fromkeys(("transformers", "peft", "tokenizers", "gguf"), "llm"),
    **dict.fromkeys(("sacrebleu", "rouge_score", "nltk"), "llm"),
}
"""Extra of the installation that brings each package."""


@contextmanager
def extra(key: str, value: object) -> Iterator[None]:
    """Let something be imported or made that needs an extra; `UserError` where its package is missing."""
    try:
        yield
    except (ModuleNotFoundError, UserError) as error:
        package = next(filter(_EXTRAS.get, _missing(error)), None)
        if package is None:
            raise
        brings = "grpcio and protobuf" if package in ("grpc", "grpc_health", "google") else package
        raise UserError(key, value, f"needs {brings}: {install_command(_EXTRAS[package])}") from error


def install_command(extra: str) -> str:
    """Command that installs an extra: in the checkout that runs, or from where pip found the package."""
    checkout = Path(__file__).parents[3]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install 'fedsplit[{extra}]'"
    pinned = str(checkout / "constraints.txt")  # else pip could bring another torch
    return shlex.join(["pip", "install", "-c", pinned, "-e", f"{checkout}[{extra}]"])


def _missing(error: BaseException | None) -> Iterator[str]:
    """Packages that were not found, of an error and those that it came from."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            yield (error.name or "").partition(".")[0]
        error = error.__cause__
