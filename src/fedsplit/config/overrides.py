"""Overrides as they are typed: older spellings, and codecs chosen by the key they stand at."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsplit.config.checks import BESIDE_TASK
from fedsplit.config.grammar import parsed
from fedsplit.config.settings import CODECS
from fedsplit.errors import UserError

OLDER_SPELLINGS = {"dataset.distribution": "distribution", "dataset.alpha": "distribution.alpha"}


def spelled_out(argument: str) -> list[str]:
    """An argument as Hydra takes it.

    Raises:
        UserError: it chooses no codec where one is needed, or several where one key stands for several.
    """
    key, equals, value = argument.partition("=")
    codecs = [path for path in CODECS if path == key or (key == "quant.weights" and path.startswith(key))]
    if codecs and equals:
        if value == "null":
            raise UserError(key, value, "a codec is needed; none sends values as they are")
        if len(codecs) > 1 and "," in value:
            raise UserError(key, value, f"a sweep takes one of {', '.join(codecs)}, or presets")
        return [f"codec@{path}={value}" for path in codecs]
    if value.startswith("~") and "," not in value and "'" not in value:
        value = f"'{value}'"  # a path at home, which Hydra's grammar takes in quotes only
    return [OLDER_SPELLINGS.get(key, key) + equals + value]


def one_list(argument: str) -> str:
    """An argument of a single run: there `precision=fp32,int8` is a list, as of a sweep it is two jobs."""
    key, _, value = argument.partition("=")
    sweeps = key == "precision" and "," in value and not value.startswith(("[", "choice("))
    return f"{key}=[{value}]" if sweeps else argument


def check_beside(task: str, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise where something is given that is not this command's to say, but the server's or the run's.

    Raises:
        UserError: it is; names what may be given.
    """
    if task not in BESIDE_TASK or (task == "infer" and config.get("run") is None):
        return
    allowed, told = BESIDE_TASK[task]
    for override in parsed(overrides):
        key = override.key_or_group
        if not any(key == own or key.startswith(f"{own}.") for own in allowed):
            raise UserError(key, override.value(), f"{told} {', '.join(allowed)}")
