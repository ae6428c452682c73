"""Runs read back from their directories, each setting and seed once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import TypeAlias

from fedsplit.config.dotted_keys import below, flat
from fedsplit.config.values import Plain
from fedsplit.errors import UserError
from fedsplit.files.bounded import Damage, csv_table, json_in, number, parse_whole_number
from fedsplit.files.paths import in_one_line, user_path
from fedsplit.recording.config_file import CONFIG_FILE, read_config, runs_below

METRICS = "metrics.csv"
RUN_FILES = (CONFIG_FILE, METRICS)
"""Files that every run's directory holds."""
RESULTS = "results.json"
_CHOICES = "choices"
_OF_MESSAGES = ("bytes", "bits", "sqnr", "retransmitted")
WITHOUT_EFFECT = (
    *("seed", "task", "tracker", "sweep", "progress", "resume", "trust", "checkpoint_interval"),
    *("measure_gradient_error", "dataset.download"),
)
"""Settings in which runs of one curve may differ: the seed, and what cannot change a result."""


Setting: TypeAlias = tuple[tuple[str, str], ...]
"""Dotted keys with their values."""


@dataclass(frozen=True)
class Run:
    """A run read back from its directory.

    Args:
        label: the algorithm, then what tells the run from those it is drawn with, its seed aside.
        columns: columns of `metrics.csv`, a value a round; None where the round had none. Loads are in bytes.
        results: results of `results.json`; None where the run has not ended.
    """

    path: Path
    config: Mapping[str, object]
    label: str
    columns: Mapping[str, tuple[float | None, ...]]
    results: Plain | None = None

    @property
    def seed(self) -> int:
        """The seed of everything that it drew."""
        return int(self.values_by_key["seed"])

    @property
    def algorithm(self) -> str:
        """The canonical name of its algorithm, whatever alias it was started by."""
        return self.choices["algorithm"]

    @cached_property
    def choices(self) -> dict[str, str]:
        """The chosen option of each group, by the group's place in the configuration."""
        return {
            place: _canonical(place, choice, self.settings.get(f"{place}._target_", ""))
            for place, choice in sorted(self.options.items())
            if place == "algorithm" or self.inside(place)
        }

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every value that can change a result, by dotted key."""
        return {key: value for key, value in self.values_by_key.items() if not below(key, WITHOUT_EFFECT)}

    def setting_beside(self, keys: Sequence[str]) -> Setting:
        """All that is set, but for what is at or below these keys."""
        return tuple((key, value) for key, value in self.settings.items() if not below(key, keys))

    def names_at(self, key: str) -> tuple[str, ...]:
        """Names that a group or a dotted key is set to: a choice goes by its own name and the canonical one.

        Empty where the run has no such key.
        """
        if key in self.options:
            own = self.options[key]
            return tuple(dict.fromkeys((own, self.choices.get(key, own))))
        return (self.values_by_key[key],) if key in self.values_by_key else ()

    @cached_property
    def options(self) -> dict[str, str]:
        """The chosen option of each group by its own name, by place; `null` where none is chosen."""
        chosen = (each for each in self._flat.items() if below(each[0], (_CHOICES,)))
        return {key.removeprefix(f"{_CHOICES}.").rpartition("@")[2]: option for key, option in chosen}

    @cached_property
    def values_by_key(self) -> dict[str, str]:
        """Every value, by dotted key."""
        return {key: value for key, value in self._flat.items() if not below(key, (_CHOICES,))}

    @cached_property
    def _flat(self) -> dict[str, str]:
        return dict(flat(self.config))

    def values(self, column: str) -> dict[int, float]:
        """The values of a column, by round, of rounds that have one; `UserError` where no round has."""
        if column not in self.columns:
            known = [name for name in self.columns if not below(name, _OF_MESSAGES)]
            message = f"has no {column} in metrics.csv, but {', '.join(known)}, and more of messages"
            raise UserError("run", self.path, message)
        cells = zip(self.columns["round"], self.columns[column], strict=False)
        values = {int(t): value for t, value in cells if t is not None and value is not None}
        if not values:
            raise UserError("run", self.path, f"must hold at least one round with a {column} in metrics.csv")
        return values

    def inside(self, place: str) -> dict[str, str]:
        """The settings at and below a dotted key."""
        return {k: v for k, v in self.settings.items() if k == place or k.startswith(f"{place}.")}


def is_run(path: Path) -> bool:
    """True if a directory is that of a run."""
    return all((path / name).is_file() for name in RUN_FILES)


def without_repeats(runs: Sequence[Run]) -> tuple[list[Run], dict[Path, Path]]:
    """Only one run of each setting and seed: that with the most rounds, the last of equals.

    Returns:
        The runs kept, and for the path of each run left out the path of the one that stands for it.
    """
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        identity = (run.seed, *run.settings.items())
        other = kept.get(identity)
        if other is None or len(run.columns["round"]) >= len(other.columns["round"]):
            kept[identity] = run
    stands = {run.path: kept[(run.seed, *run.settings.items())].path for run in runs}
    return list(kept.values()), {path: by for path, by in stands.items() if path != by}


def read_run(path: Path) -> Run:
    """The run in a directory, labelled by its algorithm alone.

    Raises:
        UserError: the directory is not that of a run, or of one of another format, or a file is damaged.
    """
    if not is_run(path):
        message = f"must be the directory of a run, with {' and '.join(RUN_FILES)}"
        raise UserError("run", path, message + runs_below(path))
    config = read_config(path, "run")
    try:
        results = json_in(path / RESULTS) if (path / RESULTS).is_file() else None
        columns = _columns(path)
    except OSError as error:
        raise UserError("run", path, f"must be readable ({error.strerror})") from error
    except Damage as error:
        message = f"{METRICS}, {RESULTS} must not be damaged ({error})"
        raise UserError("run", path, message) from error
    if results is not None and not _are_results(results):
        raise UserError("run", path, f"{RESULTS} must not be damaged")
    match config:
        case {"choices": {"algorithm": str()}, "seed": int(seed)} if not isinstance(seed, bool):
            run = Run(path, config, "", columns, results)
            return replace(run, label=run.algorithm)
    raise UserError("run", path, "config.yaml must be that of a run: it has no algorithm chosen or no seed")


def _are_results(results: object) -> bool:
    if not isinstance(results, dict):
        return False
    counts, versions = results.get("parameters", {}), results.get("versions", {})
    return (
        isinstance(counts, dict)
        and isinstance(versions, dict)
        and all(isinstance(count, int | None) for count in counts.values())
        and all(isinstance(version, str) for version in versions.values())
    )


def _columns(path: Path) -> dict[str, tuple[float | None, ...]]:
    names, rows = csv_table(path / "metrics.csv")
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    if not {"round", "load"} <= columns.keys():
        raise UserError("run", path, "metrics.csv must have the columns round and load")
    for line, row in rows:
        try:
            cells = {name: number(cell) if cell != "" else None for name, cell in row.items()}
            cells |= {"round": parse_whole_number(row["round"]), "load": parse_whole_number(row["load"])}
        except ValueError as error:
            raise UserError("run", path, f"line {line} of metrics.csv must be whole") from error
        if cells["round"] != (expected := len(columns["round"])):
            message = f"metrics.csv must hold rounds 0, 1, 2, ...: line {line} is of round"
            raise UserError("run", path, f"{message} {cells['round']}, not {expected}")
        for name, value in cells.items():
            columns[name].append(value)
    return {name: tuple(values) for name, values in columns.items()}


def _canonical(place: str, choice: str, target: str) -> str:
    """The name of an option; the aliases of these groups are told by the file of the class they name."""
    if place in ("algorithm", "distribution") and target.startswith("fedsplit."):
        return target.split(".")[-2]
    return choice


@dataclass(frozen=True)
class FoundRuns:
    """Directories of runs in alphabetical order; and those beside them, as in a sweep, that are of none."""

    runs: tuple[Path, ...]
    others: tuple[Path, ...]


def runs_at(place: str, key: str) -> FoundRuns:
    """The runs anywhere below a path or glob that `key` named; `UserError` where a folder cannot be read."""
    path = user_path(place, key)
    paths = [path] if path.exists() else map(Path, sorted(glob(str(path), recursive=True)))
    runs: list[Path] = []
    others: list[Path] = []
    with in_one_line(key, place, "must be readable"):
        for path in paths:
            _look(path, runs, others)
    return FoundRuns(tuple(runs), tuple(others))


def _look(path: Path, runs: list[Path], others: list[Path]) -> bool:
    """Add what is at or below a path; whether it is a run."""
    if is_run(path):
        runs.append(path)
        return True
    if not path.is_dir():
        return False
    beside: list[Path] = []
    jobs = False
    folders = (entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    for each in sorted(Path(entry) for entry in folders if not entry.name.startswith(".")):
        before = len(runs)
        jobs |= _look(each, runs, others)
        if len(runs) == before:
            beside.append(each)
    others += beside if jobs else []
    return False
