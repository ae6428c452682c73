"""The run command: one run, a resumed one, or a sweep, from what is given on the command line."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException

from fedsplit.cli.flags import SHOWS, apart, check_flags, show
from fedsplit.cli.resuming import resume, taken_out
from fedsplit.cli.single import compose_single, single
from fedsplit.config.choices import own_choices
from fedsplit.config.overrides import one_list, spelled_out
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files.paths import shown


def main() -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 0, 2 for a mistake in what was asked, 3 for a run that failed, 130 if interrupted.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a `_target_` may be in a file there; last, so that it hides nothing
    try:
        own, arguments = apart(sys.argv[1:])
        with own_choices(own):
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
    """Do what the arguments of the command ask for, and print where results are.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    arguments = [each for argument in arguments for each in spelled_out(argument)]
    flags = [argument for argument in arguments if argument.startswith("-")]
    check_flags(flags)
    if SHOWS.intersection(flags):
        show(arguments)
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    resumed, others = taken_out(overrides)
    if resumed is not None:
        if flags:
            raise UserError("resume", resumed, "a run is resumed by itself, not in a sweep")
        print(shown(resume(resumed, others)))
    elif flags:
        from fedsplit.sweeps.sweep import sweep  # noqa: PLC0415  (what draws tables, only where there are any)

        sweep(overrides)
    else:
        directory, config = compose_single([one_list(override) for override in overrides])
        single(directory, config)
        if (directory / "config.yaml").is_file():
            print(shown(directory))
