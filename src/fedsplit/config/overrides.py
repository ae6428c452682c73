"""Overrides as they are typed: older spellings, and codecs chosen by the key they stand at."""

from collections.abc import Sequence

from fedsplit.config.dotted_keys import below
from fedsplit.config.grammar import parsed
from fedsplit.config.settings import CODECS
from fedsplit.config.traits import task_traits
from fedsplit.config.values import Plain
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


def check_beside(config: Plain, overrides: Sequence[str]) -> None:
    """Raise `UserError` where a key is given that is the server's to say, or the run's: names what may be."""
    task = task_traits(config)
    if task.beside is None or (task.models_of_run != "refused" and config.get("run") is None):
        return
    whose = "the server's to say" if task.joins else "that of the run"
    for override in parsed(overrides):
        key = override.key_or_group
        if not below(key, task.beside):
            told = f"is {whose}; beside this task may be given {', '.join(task.beside)}"
            raise UserError(key, override.value(), told)
