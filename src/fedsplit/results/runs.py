"""Runs read back from their directories, and labelled by what tells them apart."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import yaml

from fedsplit.config import with_defaults_of_old
from fedsplit.errors import UserError

X: TypeAlias = Literal["round", "load"]
Y: TypeAlias = Literal["test_accuracy", "test_loss", "train_loss"]
XS: tuple[X, ...] = get_args(X)
YS: tuple[Y, ...] = get_args(Y)
RUN_FILES = ("config.yaml", "metrics.csv")
"""What makes a directory that of a run."""
_WITHOUT_EFFECT = {"seed", "task", "progress", "resume", "run", "checkpoint_interval", "dataset.download"}
"""Settings in which runs of one curve may differ: the seed, and what cannot change a result."""
_NAMED_BY_CHOICE = {"model", "dataset", "distribution"}
"""Groups whose choices speak for themselves: `iid`, but `quant=none`."""


@dataclass(frozen=True)
class Run:
    """A run read back from its directory.

    Args:
        path: of the directory.
        config: as in its `config.yaml`.
        label: the algorithm, then what tells the run from those it is drawn with, its seed aside.
        columns: of `metrics.csv`, a value a round; None where the round had none. Loads are in bytes.
    """

    path: Path
    config: Mapping[str, Any]
    label: str
    columns: Mapping[str, tuple[float | None, ...]]

    @property
    def algorithm(self) -> str:
        """The canonical name of its algorithm, whatever alias it was started by."""
        return self.choices["algorithm"]

    @property
    def choices(self) -> dict[str, str]:
        """The chosen option of each group, by the group's place in the configuration."""
        places = {group.rpartition("@")[2]: choice for group, choice in self.config["choices"].items()}
        return {
            place: _canonical(place, _shown(choice), self.settings.get(f"{place}._target_", ""))
            for place, choice in sorted(places.items())
            if place == "algorithm" or self.inside(place)
        }

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every value that can change a result, by dotted key."""
        own = {key: value for key, value in self.config.items() if key != "choices"}
        return {key: value for key, value in _flat(own) if key not in _WITHOUT_EFFECT}

    def values(self, column: X | Y) -> dict[int, float]:
        """The values of a column, by round; rounds without one are left out.

        Raises:
            UserError: no round has one.
        """
        cells = zip(self.columns["round"], self.columns.get(column, ()), strict=False)
        values = {int(t): value for t, value in cells if t is not None and value is not None}
        if not values:
            raise UserError("run", self.path, f"must hold at least one round with a {column} in metrics.csv")
        return values

    def inside(self, place: str) -> dict[str, str]:
        """The settings at and below a dotted key."""
        return {k: v for k, v in self.settings.items() if k == place or k.startswith(f"{place}.")}


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run."""
    return all((path / name).is_file() for name in RUN_FILES)


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in these directories, labelled so that they can be told apart.

    Raises:
        UserError: a directory is not that of a run, or one of its files is damaged.
    """
    return _labelled([_load(path) for path in paths])


def without_repeats(runs: Sequence[Run]) -> tuple[list[Run], dict[Path, Path]]:
    """Only one run of each setting and seed: that with the most rounds, the last of equals.

    Returns:
        The runs kept, and for the path of each run left out the path of the one that stands for it.
    """
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        identity = (run.config["seed"], *run.settings.items())
        other = kept.get(identity)
        if other is None or len(run.columns["round"]) >= len(other.columns["round"]):
            kept[identity] = run
    stands = {run.path: kept[(run.config["seed"], *run.settings.items())].path for run in runs}
    return list(kept.values()), {path: by for path, by in stands.items() if path != by}


def _load(path: Path) -> Run:
    if not is_run(path):
        raise UserError("run", path, f"must be the directory of a run, with {' and '.join(RUN_FILES)}")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
        with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
            columns = _columns(path, csv.DictReader(file))
    except OSError as error:
        raise UserError("run", path, f"must be readable ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, csv.Error) as error:
        raise UserError("run", path, f"{' and '.join(RUN_FILES)} must not be damaged") from error
    match config:
        case {"choices": {"algorithm": str()}, "seed": int()}:
            run = Run(path, with_defaults_of_old(config), "", columns)
            return replace(run, label=run.algorithm)
    raise UserError("run", path, "config.yaml must be that of a run: it has no algorithm chosen or no seed")


def _columns(path: Path, rows: "csv.DictReader[str]") -> dict[str, tuple[float | None, ...]]:
    columns: dict[str, list[float | None]] = {name: [] for name in rows.fieldnames or ()}
    if not {"round", "load"} <= columns.keys():
        raise UserError("run", path, "metrics.csv must have the columns round and load")
    for row in rows:
        try:
            # A row too short has None for cells, one too long has None for a column.
            cells = {name: float(cell) if cell != "" else None for name, cell in row.items()}
            cells |= {"round": int(row["round"]), "load": int(row["load"])}
        except (TypeError, ValueError) as error:
            raise UserError("run", path, f"line {rows.line_num} of metrics.csv must be whole") from error
        for name, value in cells.items():
            columns[name].append(value)
    return {name: tuple(values) for name, values in columns.items()}


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs, labelled by what differs among them.

    A key is compared only among the runs that chose the option it belongs to: one Dirichlet distribution
    beside an IID one needs no alpha in its label.
    """
    names: dict[tuple[object, ...], str] = {}  # options of a group with the same content are one
    chosen: list[dict[str, str]] = []
    for run in runs:
        chosen.append({p: names.setdefault((p, *run.inside(p).items()), c) for p, c in run.choices.items()})
    described = [{**run.settings, **choices} for run, choices in zip(runs, chosen, strict=True)]
    keys = sorted({key for values in described for key in values} - {"algorithm"})
    pieces = [[run.algorithm] for run in runs]
    for key in keys:
        scopes = [_scope(key, choices) for choices in chosen]
        found: dict[tuple[str, ...], set[str | None]] = {}
        for scope, values in zip(scopes, described, strict=True):
            found.setdefault(scope, set()).add(values.get(key))
        for scope, values, own in zip(scopes, described, pieces, strict=True):
            if key in values and len(found[scope]) > 1:
                named = "" if key in _NAMED_BY_CHOICE else f"{_short(key, keys)}="
                own.append(named + values[key])
    return [replace(run, label=", ".join(own)) for run, own in zip(runs, pieces, strict=True)]


def _scope(key: str, choices: Mapping[str, str]) -> tuple[str, ...]:
    """The choices that two runs must share for `key` to mean the same in both."""
    if key.endswith("_target_"):  # may follow from another group: the auxiliary model from the model
        return tuple(choices.values())
    places = [place for place in choices if key.startswith(f"{place}.")]
    return (choices[max(places, key=len)],) if places else ()


def _canonical(place: str, choice: str, target: str) -> str:
    """The name of an option; the aliases of these groups are told by the file of the class they name."""
    if place in ("algorithm", "distribution") and target.startswith("fedsplit."):
        return target.split(".")[-2]
    return choice


def _short(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted key that belongs to no other key."""
    parts = key.split(".")
    ends = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
    return next((e for e in ends if sum(f".{k}".endswith(f".{e}") for k in keys) == 1), key)


def _flat(node: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values, in alphabetical order."""
    if isinstance(node, Mapping):
        for key in sorted(node, key=str):
            yield from _flat(node[key], f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, _shown(node)


def _shown(value: object) -> str:
    """As on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return f"[{','.join(_shown(item) for item in value)}]"
    return str(value)
