"""Deployed client models on disk: a directory with `deployment.json` and the model's file beside it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsplit.config.component import import_target
from fedsplit.deployment.backends.backend import Build, DeployedModel
from fedsplit.deployment.precisions import readers
from fedsplit.errors import UserError, first_line
from fedsplit.files.bounded import json_in
from fedsplit.files.whole import write_json
from fedsplit.machine.extras import extra

DESCRIPTION = "deployment.json"


def describe(directory: Path, format: str, settings: Mapping[str, object] | None = None) -> None:
    """Write `deployment.json`, with what `format` needs to know beside the model's file."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / DESCRIPTION, {"format": format, **(settings or {})})


def description(directory: Path) -> dict[str, Any]:
    """Description that `describe` wrote; `UserError` where there is none, or it is damaged."""
    try:
        found: dict[str, Any] = json_in(directory / DESCRIPTION)
    except OSError as error:
        raise UserError("deployed", directory, f"holds no deployed client model: no {DESCRIPTION}") from error
    except ValueError as error:
        raise UserError("deployed", directory, f"its {DESCRIPTION} is damaged ({error})") from error
    format = found.get("format") if isinstance(found, dict) else None
    known = readers()
    if not isinstance(format, str) or format not in known:
        message = f"its {DESCRIPTION} must name one of {', '.join(sorted(known))}"
        raise UserError("deployed", directory, message)
    return found


def grid(description: Mapping[str, object]) -> tuple[float | None, int]:
    """Scale and zero point of a model's codes; the scale is None of one that puts out none.

    Raises:
        ValueError: they are none of codes of 8 bits.
    """
    scale, zero_point = description.get("scale"), description.get("zero_point")
    if type(zero_point) is not int or not -128 <= zero_point <= 255:
        raise ValueError("zero_point is a whole number of 8 bits")
    if not (scale is None or (isinstance(scale, float) and 0 < scale < math.inf)):
        raise ValueError("scale is a positive number")
    return scale, zero_point


def size(directory: Path) -> int:
    """Bytes of the model's file, without `deployment.json`."""
    return sum(path.stat().st_size for path in directory.iterdir() if path.name != DESCRIPTION)


def reader(directory: Path) -> type[DeployedModel]:
    """Imported class that reads a deployed client model; `UserError` where something of it is not there."""
    target = readers()[description(directory)["format"]]
    with extra("deployed", directory):
        found: type[DeployedModel] = import_target("reader", target)
    return found


def load(directory: Path, build: Build) -> DeployedModel:
    """A deployed client model that was saved, by whatever backend; nothing is unpickled.

    Raises:
        UserError: there is none, it is damaged, or it needs what is not installed.
    """
    kind = reader(directory)
    try:
        return kind.load(directory, build)
    except UserError:
        raise
    except Exception as error:  # whatever a library makes of a file that is damaged, or of another model
        raise UserError("deployed", directory, f"cannot be loaded ({first_line(error)})") from error
