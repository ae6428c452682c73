"""Runs experiments: `python main.py --help`. Hydra composes what is asked for, and runs sweeps."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

try:
    import hydra
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from fedsplit.config.compose import (
        CONFIGS,
        check_hydra,
        choices_of,
        composed,
        composing,
        first_line,
        hydra_path,
        plain,
    )
    from fedsplit.config.grammar import parsed
    from fedsplit.config.overrides import check_beside, one_list, spelled_out
    from fedsplit.config.run_config import RunConfig
    from fedsplit.errors import RunFailed, UserError
    from fedsplit.files.paths import user_path
    from fedsplit.files.shown_path import resume_command, shown
    from fedsplit.machine.terminal import with_tolerant_output
    from fedsplit.tasks.running import go_on, perform
except KeyboardInterrupt:  # imports take a second or two
    print("interrupted", file=sys.stderr)
    sys.exit(130)

HERE = Path.cwd()
SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}
"""Flags by which Hydra shows something and runs nothing."""
SWEEPS = {"-m", "--multirun"}
CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra do what it does: show help and configurations."""
    overrides = [each for each in arguments if "=" in each and not each.startswith("-")]
    if overrides and not SWEEPS.intersection(arguments):
        with composing():
            composed(overrides)  # tells of a mistake in one line
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to `main`, which tells them in one line
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(lambda config: None)()


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """While a run is at work in a directory: Ctrl-C says how to go on with what it has begun."""
    try:
        yield
    except KeyboardInterrupt as error:
        begun = (directory / "config.yaml").is_file()
        raise KeyboardInterrupt(*[resume_command(directory)] if begun else []) from error


def resume(given: str, overrides: Sequence[str]) -> None:
    """Go on with the run in the directory `given`, with what may be changed."""
    directory = user_path(given, "resume")
    changes = {override.key_or_group: override.value() for override in parsed(overrides)}
    with resumable(directory):
        go_on(directory, changes)
    print(shown(directory))


def run(arguments: Sequence[str]) -> None:
    """Do what the command line asks for."""
    arguments = [each for argument in arguments for each in spelled_out(argument)]
    flags = [argument for argument in arguments if argument.startswith("-")]
    if configured := [flag for flag in flags if flag.partition("=")[0] in CONFIG_FLAGS]:
        told = "the configuration is hydra_config/config.yaml; choices of your own are files in its folders"
        raise UserError("flag", configured[0], told)
    if SHOWS.intersection(flags):
        hand_over(arguments)
        return
    if unknown := set(flags) - SWEEPS:
        raise UserError("flag", sorted(unknown)[0], f"must be one of {', '.join(sorted(SHOWS | SWEEPS))}")
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    resumed = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("resume=")]
    if resumed and resumed[-1] != "null":
        if flags:
            raise UserError("resume", resumed[-1], "a run is resumed by itself, not in a sweep")
        resume(resumed[-1], [o for o in overrides if not o.startswith("resume=")])
        return
    if flags:
        from fedsplit.sweeps.sweep import sweep  # noqa: PLC0415  (what draws tables, only where there are any)

        sweep(overrides)
    else:
        single([one_list(override) for override in overrides])


def single(overrides: Sequence[str]) -> None:
    """One run."""
    with composing():
        config = composed(overrides)
        check_hydra(config)
        directory, settings = hydra_path(config, "hydra.run.dir"), plain(config)
    if config.hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode", "MULTIRUN", "a sweep is asked for by -m")
    check_beside(config.hydra.runtime.choices.task, settings, list(config.hydra.overrides.task))
    asked = RunConfig.parse(settings, choices_of(config))
    if asked.sweep and asked.sweep.skip_finished:
        raise UserError("sweep.skip_finished", True, "is for a sweep, which is asked for by -m")
    directory = directory.absolute()
    with resumable(directory):
        perform(directory, asked)
    if (directory / "config.yaml").is_file():
        print(shown(directory))


def main() -> int:
    """Exit code: 0, 2 for a mistake in what was asked, 3 for a run that failed."""
    if str(HERE) not in sys.path:
        sys.path.append(str(HERE))  # a `_target_` may be in a file there; last, so that it hides nothing
    try:
        run(sys.argv[1:])
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


if __name__ == "__main__":
    sys.exit(with_tolerant_output(main))
