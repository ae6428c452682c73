"""Flags of the run command: by some Hydra shows something, by others a sweep is asked for."""

import os
import sys
from collections.abc import Sequence

import hydra

from fedsplit.config.choices import CONFIGS, FLAG
from fedsplit.config.compose import composed, composing
from fedsplit.errors import UserError

SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}
"""Flags by which Hydra shows something and runs nothing."""
SWEEPS = {"-m", "--multirun"}
_DIRECTORY = (FLAG, "-cd")
_CONFIGURES = ("--config-name", "-cn", "--config-path", "-cp")


def apart(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The directory of choices of the user's own that arguments name, and the other arguments.

    Raises:
        UserError: no directory follows the flag, or it is given twice.
    """
    found, others = [], []
    rest = iter(arguments)
    for each in rest:
        flag, equals, value = each.partition("=")
        if flag in _DIRECTORY:
            found.append(value if equals else next(rest, ""))
        else:
            others.append(each)
    if len(found) > 1 or "" in found:
        raise UserError(FLAG, " ".join(found), "takes one directory, once")
    return (found[0] if found else None), others


def check_flags(flags: Sequence[str]) -> None:
    """Raise where a flag is given that this command does not have.

    Raises:
        UserError: it is.
    """
    if configured := [flag for flag in flags if flag.partition("=")[0] in _CONFIGURES]:
        told = f"the configuration is hydra_config/config.yaml; {FLAG} adds choices of your own"
        raise UserError("flag", configured[0], told)
    if not SHOWS.intersection(flags) and (unknown := set(flags) - SWEEPS):
        known = ", ".join(sorted({*SHOWS, *SWEEPS, FLAG}))
        raise UserError("flag", sorted(unknown)[0], f"must be one of {known}")


def show(arguments: Sequence[str]) -> None:
    """Let Hydra show what a flag asks for: help, or the configuration.

    Raises:
        UserError: an override beside it is wrong.
    """
    overrides = [each for each in arguments if "=" in each and not each.startswith("-")]
    if overrides and not SWEEPS.intersection(arguments):
        with composing():
            composed(overrides)  # tells of a mistake in one line
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to `main`, which tells them in one line
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(lambda config: None)()
