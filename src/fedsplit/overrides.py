"""Overrides as they are typed: older spellings, and codecs chosen by the key they stand at."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fedsplit.composition import first_line
from fedsplit.config import CODECS
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
    return [OLDER_SPELLINGS.get(key, key) + equals + value]


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides, read by Hydra's grammar.

    Raises:
        UserError: one cannot be read.
    """
    try:
        found: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError("overrides", " ".join(overrides), first_line(error)) from error
    return found
