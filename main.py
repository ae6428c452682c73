"""Runs experiments: `python main.py --help`. Hydra composes what is asked for, and runs sweeps."""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedsplit.composition import CONFIGS, composed, composing, first_line, plain
from fedsplit.config import BESIDE_TASK, CODECS, check
from fedsplit.errors import RunFailed, UserError

HERE = Path.cwd()
SHOWS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}
"""Flags by which Hydra shows something and runs nothing."""
SWEEPS = {"-m", "--multirun"}
OLDER_SPELLINGS = {"dataset.distribution": "distribution", "dataset.alpha": "distribution.alpha"}


def spelled_out(argument: str) -> list[str]:
    """An argument as Hydra takes it: older spellings, and codecs chosen by the key they stand at."""
    key, equals, value = argument.partition("=")
    codecs = [path for path in CODECS if path == key or (key == "quant.weights" and path.startswith(key))]
    if codecs and equals:
        if value == "null":
            raise UserError(key, value, "a codec is needed; none sends values as they are")
        if len(codecs) > 1 and "," in value:
            raise UserError(key, value, f"a sweep takes one of {', '.join(codecs)}, or presets")
        return [f"codec@{path}={value}" for path in codecs]
    return [OLDER_SPELLINGS.get(key, key) + equals + value]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        parsed: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError("overrides", " ".join(overrides), first_line(error)) from error
    return parsed


def jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each job of a sweep."""
    choices = []
    for override in _parsed(overrides):
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    return (list(job) for job in itertools.product(*choices))


def perform(directory: Path, config: dict[str, Any], choices: Mapping[str, str]) -> None:
    """Do what the task says.

    Raises:
        UserError: something asked for cannot be.
        RunFailed: the run could not be carried to its end.
    """
    check(config)
    from fedsplit.making import make  # noqa: PLC0415  (heavy: only after the check)
    from fedsplit.tasks.task import Task  # noqa: PLC0415

    chosen = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    make(Task, config, "task").run({**config, "choices": chosen}, directory)  # type: ignore[type-abstract]
    if (directory / "config.yaml").is_file():
        print(shown(directory))


def job(config: DictConfig) -> None:
    """One job of a sweep. A failure is told here, and seen by the sweep from what is missing."""
    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    try:
        perform(directory, plain(config), hydra_config.runtime.choices)
    except (UserError, RunFailed) as error:
        print(f"error: job {hydra_config.job.num}: {error}", file=sys.stderr)
        with suppress(OSError):
            directory.rmdir()  # only where nothing was written yet


def shown(path: Path) -> Path:
    """Relative to where the command was given, where it is below."""
    return path.relative_to(HERE) if path.is_relative_to(HERE) else path


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra do what it does: sweep over `job`, or show help and configurations."""
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to `main`, which tells them in one line
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()


def resume(given: str, overrides: Sequence[str]) -> None:
    """Go on with the run in the directory `given`, with what may be changed."""
    from fedsplit.experiment import Experiment, resumed_config  # noqa: PLC0415
    from fedsplit.results.run_directory import RunDirectory  # noqa: PLC0415

    directory = RunDirectory.existing(Path(given))
    changes = {override.key_or_group: override.value() for override in _parsed(overrides)}
    experiment = Experiment(resumed_config(directory, changes))
    checkpoint = directory.latest_checkpoint()
    if checkpoint is not None:
        experiment.restore(checkpoint)
    experiment.run(directory)
    print(shown(directory.path))


def run(arguments: Sequence[str]) -> None:
    """Do what the command line asks for."""
    arguments = [each for argument in arguments for each in spelled_out(argument)]
    flags = [argument for argument in arguments if argument.startswith("-")]
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
        sweep(overrides)
    else:
        single(overrides)


def single(overrides: Sequence[str]) -> None:
    """One run."""
    with composing():
        config = composed(overrides)
        directory, settings = hydra_path(config, "hydra.run.dir"), plain(config)
    if config.hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode", "MULTIRUN", "a sweep is asked for by -m")
    if config.hydra.runtime.choices.task in BESIDE_TASK:
        allowed, told = BESIDE_TASK[config.hydra.runtime.choices.task]
        for override in _parsed(list(config.hydra.overrides.task)):
            key = override.key_or_group
            if not any(key == own or key.startswith(f"{own}.") for own in allowed):
                raise UserError(key, override.value(), f"{told} {', '.join(allowed)}")
    perform(directory.absolute(), settings, config.hydra.runtime.choices)


def hydra_path(config: DictConfig, key: str) -> Path:
    """A directory that Hydra's part of the configuration names."""
    try:
        return Path(OmegaConf.select(config, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise UserError(key, "?", first_line(error)) from error


def sweep(overrides: Sequence[str]) -> None:
    """Run every combination, in processes side by side, once the keys of all are checked.

    Raises:
        RunFailed: a job did not end well; each has told its own error.
    """
    asked = list(jobs(overrides))
    with composing():
        for each in asked:
            config = composed(each)
            check(plain(config))
            task = config.hydra.runtime.choices.task
            if task != "train":
                raise UserError(
                    "task", task, "leaves no run behind that a sweep could collect; do it by itself"
                )
        own = composed([override for override in overrides if override.startswith("hydra.")])
        directory = hydra_path(own, "hydra.sweep.dir")
    from fedsplit.results.run_directory import RunDirectory  # noqa: PLC0415

    RunDirectory.new(directory, "hydra.sweep.dir")
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    others = [o for o in overrides if not o.startswith("hydra.sweep.dir=")]
    hand_over([*others, f"hydra.sweep.dir='{quoted}'", "--multirun"])
    print(shown(directory))
    failed = len(asked) - len(list(directory.glob("*/results.json")))
    if failed:
        raise RunFailed(f"{failed} of {len(asked)} jobs failed; the others are in {shown(directory)}")


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
    except KeyboardInterrupt:
        print("interrupted; a run goes on with resume=<its directory>", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
