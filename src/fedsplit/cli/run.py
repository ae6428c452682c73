"""The run command: one run, a resumed one, or a sweep, from what is given on the command line."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException

from fedsplit.cli.single import compose_single, extract_resume, resume, single
from fedsplit.config.choices import CONFIGS, FLAG, user_choices
from fedsplit.config.compose import compose_config, composing
from fedsplit.config.overrides import join_list, spell_out
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files.paths import display_path


def main() -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 0, 2 for a mistake in what was asked, 3 for a run that failed, 130 if interrupted.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a `_target_` may be in a file there; last, so that it hides nothing
    try:
        own, arguments = split_config_directory(sys.argv[1:])
        with user_choices(own):
            run(arguments)
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except HydraException as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"interrupted{'; go on with: ' if error.args else ''}{''.join(error.args)}", file=sys.stderr)
        return 130
    return 0


def run(arguments: Sequence[str]) -> None:
    """Do what the arguments of the command ask for, and print where results are; raises as `Task.run`."""
    arguments = [each for argument in arguments for each in spell_out(argument)]
    flags = [argument for argument in arguments if argument.startswith("-")]
    check_flags(flags)
    if SHOWS.intersection(flags):
        show(arguments)
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    resumed, others = extract_resume(overrides)
    if resumed is not None:
        if flags:
            raise UserError(
                "resume", resumed, "must be null with -m: a run is resumed by itself, not in a sweep"
            )
        _end(resume(resumed, others))
    elif flags:
        from fedsplit.sweeps.sweep import sweep  # noqa: PLC0415  (what draws tables, only where there are any)

        sweep(overrides)
    else:
        directory, config = compose_single([join_list(override) for override in overrides])
        single(directory, config)
        if (directory / "config.yaml").is_file():
            _end(directory)


def _end(directory: Path) -> None:
    """Print what a run reached, unless it was asked to be silent, and as the last line where it is."""
    from fedsplit.reports.runs import is_run, read_run  # noqa: PLC0415  (what draws tables, only at the end)
    from fedsplit.reports.summary import print_summary  # noqa: PLC0415

    if is_run(directory) and (run := read_run(directory)).config.get("progress") is True:
        print_summary(run)
    print(display_path(directory))


COMPLETES = {"--shell-completion", "-sc"}
"""Flags by which a shell asks Hydra how a command line can go on."""
SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", *COMPLETES}
"""Flags by which Hydra shows something and runs nothing."""
SWEEPS = {"-m", "--multirun"}
_DIRECTORY = (FLAG, "-cd")
_CONFIGURES = ("--config-name", "-cn", "--config-path", "-cp")


def split_config_directory(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split arguments into the user's directory of choices, None without one, and the others.

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
        raise UserError(FLAG, " ".join(found), "must be one directory, given once")
    return (found[0] if found else None), others


def check_flags(flags: Sequence[str]) -> None:
    """Raise `UserError` where a flag is given that this command does not have."""
    if configured := [flag for flag in flags if flag.partition("=")[0] in _CONFIGURES]:
        message = f"the configuration is hydra_config/config.yaml; {FLAG} adds choices of your own"
        raise UserError("flag", configured[0], message)
    if not SHOWS.intersection(flags) and (unknown := set(flags) - SWEEPS):
        known = ", ".join(sorted({*SHOWS, *SWEEPS, FLAG}))
        raise UserError("flag", sorted(unknown)[0], f"must be one of {known}")


def show(arguments: Sequence[str]) -> None:
    """Let Hydra show what a flag asks for: help, or the configuration.

    Raises:
        UserError: an override beside it is wrong.
    """
    overrides = [each for each in arguments if "=" in each and not each.startswith("-")]
    if overrides and not {*SWEEPS, *COMPLETES}.intersection(arguments):
        with composing():
            compose_config(overrides)  # tells of a mistake in one line
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to `main`, which tells them in one line
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(lambda config: None)()
