"""The run command: one run, a resumed one, or a sweep, from what is given on the command line."""

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import hydra
from hydra.errors import HydraException

import fedsplit
from fedsplit.cli.single import compose_single, extract_resume, resume, single
from fedsplit.cli.start import SUBCOMMANDS
from fedsplit.config.choices import CONFIGS, FLAG, names_of, user_choices
from fedsplit.config.commands import command
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
    if "--version" in flags:
        print(f"fedsplit {fedsplit.__version__}")
        return
    if SHOWS.intersection(flags):
        show(arguments)
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    check_words(overrides)
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
        flag = sorted(unknown)[0]
        key, _, value = flag.lstrip("-").partition("=")
        meant = f"; did you mean {key}={value or '...'}, without dashes?" if _is_key(key) else ""
        raise UserError("flag", flag, f"must be one of {known}{meant}")


def check_words(overrides: Sequence[str]) -> None:
    """Raise `UserError` where a word is given that is no override, with what it may have meant."""
    for place, word in enumerate(overrides):
        if word and "=" not in word and not word.startswith("~"):
            meant = _meant(word, overrides[place + 1 :])
            raise UserError("override", word, f"must be KEY=VALUE or GROUP=CHOICE{meant}")


def _meant(word: str, following: Sequence[str]) -> str:
    if word in names_of("task"):
        return f"; did you mean task={word}?"
    if _is_key(word):
        values = [each for each in following if each != "="]
        value = values[0] if values and "=" not in values[0] else "..."
        return f"; did you mean {word}={value}?"
    close = get_close_matches(word, [*SUBCOMMANDS, "help"], 1)
    meant = [f"--{each}" if each == "help" else each for each in close]
    return f"; did you mean {command(*meant)}?" if meant else f"; {command('--help')} lists both"


def _is_key(name: str) -> bool:
    """True if a group or an outermost key has this name."""
    if not name.isidentifier():
        return False
    keys = re.findall(r"^(\w+):", (CONFIGS / "config.yaml").read_text("utf-8"), re.MULTILINE)
    return name in keys or (CONFIGS / name).is_dir()


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
