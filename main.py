"""Runs experiments (`python main.py --help`): checks the configuration, then hands over to Hydra."""

import itertools
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedsplit.config import check
from fedsplit.errors import RunFailed, UserError

if TYPE_CHECKING:
    from fedsplit.experiment import Experiment

CONFIGS = Path(__file__).parent.resolve() / "hydra_config"
OLDER_SPELLINGS = {"dataset.distribution": "distribution", "dataset.alpha": "distribution.alpha"}

OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(2), use_cache=True, replace=True)


def modern(argument: str) -> str:
    """An argument in today's spelling."""
    key, equals, value = argument.partition("=")
    return OLDER_SPELLINGS.get(key, key) + equals + value


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration, with Hydra's own under `hydra`.

    Raises:
        UserError: an override is wrong.
    """
    try:
        return compose("config", list(overrides), return_hydra_config=True)
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        raise UserError(
            group, choice, f"no such choice; allowed: {', '.join(error.options or [])}"
        ) from error
    except ConfigCompositionException as error:
        found = re.search(r"Could not override '([^']+)'", str(error))
        if found is None:
            raise UserError("overrides", " ".join(overrides), _first_line(error)) from error
        raise _unknown_key(found[1].lstrip("+"), overrides) from error
    except (HydraException, ValueError) as error:  # ValueError: a group set to null
        raise UserError("overrides", " ".join(overrides), _first_line(error)) from error


def _unknown_key(key: str, overrides: Sequence[str]) -> UserError:
    value = next(
        (text.partition("=")[2] for text in overrides if text.lstrip("+~").startswith(f"{key}=")), ""
    )
    others = [text for text in overrides if not text.lstrip("+~").startswith(f"{key}=")]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(composed(others), parent) if parent else compose("config", others)
    if not isinstance(node, DictConfig):
        return UserError(key, value, f"there is no such key: {parent} is {node}")
    known = [str(known) for known in node if not str(known).startswith("_")]
    close = get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return UserError(key, value, f"no such key; {hint}known: {', '.join(known) or 'none'}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration, resolved, as plain values, without Hydra's own part."""
    own = OmegaConf.create({key: node for key, node in config.items_ex(resolve=False) if key != "hydra"})
    try:
        resolved = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error.full_key or "config"), None, _first_line(error)) from error
    return resolved  # type: ignore[return-value]


def jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each job of a sweep."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError("overrides", " ".join(overrides), _first_line(error)) from error
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    return (list(job) for job in itertools.product(*choices))


class _Single:
    """A run that is no job of a sweep: built before Hydra makes a directory, and its error told by `main`."""

    experiment: "Experiment | None" = None
    error: UserError | RunFailed | None = None


def job(config: DictConfig) -> None:
    """One run, in the directory that Hydra made for it."""
    from fedsplit.experiment import Experiment  # noqa: PLC0415  (heavy: only after the check)
    from fedsplit.results.run_directory import RunDirectory  # noqa: PLC0415

    experiment = _Single.experiment
    if experiment is None:
        checked = plain(config)
        check(checked)
        experiment = Experiment(checked)
    choices = {k: v for k, v in HydraConfig.get().runtime.choices.items() if not k.startswith("hydra/")}
    experiment.config["choices"] = dict(choices)
    directory = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    try:
        experiment.run(directory)
    except (UserError, RunFailed) as error:
        if _Single.experiment is None:
            raise  # in a sweep the job's failure is the sweep's to tell
        _Single.error = error
    else:
        print(_shown(directory.path))


def _shown(path: Path) -> Path:
    """Relative to here where it is below here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _make_directory(key: str, path: Path) -> None:
    if (path / "config.yaml").exists():
        raise UserError(key, path, f"holds a run already; resume={path} goes on with it")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(key, path, f"cannot be made ({error.strerror})") from error


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra run `job`, once or once a combination."""
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to `main`, which tells them in one line
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()


def resume(overrides: Sequence[str]) -> None:
    """Go on with a run, in its own directory."""
    changes = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    path = Path(str(changes.pop("resume")))  # type: ignore[union-attr, arg-type]
    from fedsplit.experiment import Experiment, resumed_config  # noqa: PLC0415
    from fedsplit.results.run_directory import RunDirectory  # noqa: PLC0415

    experiment = Experiment(resumed_config(path, changes))  # type: ignore[arg-type]
    directory = RunDirectory.existing(path)
    checkpoint = directory.latest_checkpoint()
    if checkpoint is not None:
        experiment.restore(checkpoint)
    experiment.run(directory)
    print(_shown(path))


def run(arguments: Sequence[str]) -> None:
    """Do what the command line asks for."""
    arguments = [modern(argument) for argument in arguments]
    flags = {argument for argument in arguments if argument.startswith("-")}
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if flags - {"-m", "--multirun"}:  # --help, --cfg and the like are Hydra's
        hand_over(arguments)
    elif any(override.startswith("resume=") and override != "resume=null" for override in overrides):
        if flags:
            raise UserError("resume", " ".join(flags), "a run is resumed by itself, not in a sweep")
        resume(overrides)
    elif flags:
        sweep(overrides)
    else:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = composed(overrides)
            checked, directory = plain(config), Path(config.hydra.run.dir)
        check(checked)
        from fedsplit.experiment import Experiment  # noqa: PLC0415

        _Single.experiment = Experiment(checked)
        _make_directory("hydra.run.dir", directory)
        hand_over(_with("hydra.run.dir", directory, overrides))
        if _Single.error is not None:
            raise _Single.error


def sweep(overrides: Sequence[str]) -> None:
    """Run every combination, in processes side by side."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for each in jobs(overrides):
            check(plain(composed(each)))
        directory = Path(composed([o for o in overrides if o.startswith("hydra.")]).hydra.sweep.dir)
    _make_directory("hydra.sweep.dir", directory)
    hand_over([*_with("hydra.sweep.dir", directory, overrides), "--multirun"])
    print(_shown(directory))


def _with(key: str, value: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides with `key` set, so that Hydra takes the very directory that was made."""
    quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return [*(o for o in overrides if not o.startswith(f"{key}=")), f"{key}='{quoted}'"]


def main() -> int:
    """Exit code: 0, 2 for a mistake in what was asked, 3 for a run that failed."""
    try:
        run(sys.argv[1:])
    except (UserError, RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except HydraException as error:
        print(f"error: {_first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; resume=<run directory> goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
