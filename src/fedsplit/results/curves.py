"""Curves: the metrics of runs read back, averaged over seeds and drawn."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import yaml

from fedsplit.errors import UserError

if TYPE_CHECKING:  # matplotlib is optional and slow to import: only `figure` needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X: TypeAlias = Literal["round", "load"]
Y: TypeAlias = Literal["test_accuracy", "test_loss", "train_loss"]

XS: tuple[X, ...] = get_args(X)
YS: tuple[Y, ...] = get_args(Y)
RUN_FILES = ("config.yaml", "metrics.csv")
"""What makes a directory that of a run."""

AXIS_LABELS: dict[X | Y, str] = {
    "round": "Round",
    "load": "Communication load (MB)",
    "test_accuracy": "Test accuracy",
    "test_loss": "Test loss",
    "train_loss": "Training loss",
}

# The palette of Okabe and Ito, "Color Universal Design", 2008, without its yellow (too pale for a line).
APPEARANCE: dict[str, tuple[str, str]] = {
    "fed_avg": ("#0072B2", "o"),
    "splitfed_v1": ("#E69F00", "s"),
    "splitfed_v2": ("#009E73", "^"),
    "cse_fsl": ("#CC79A7", "D"),
    "fsl_sage": ("#D55E00", "v"),
}
"""Colour and marker of each algorithm, in the order of drawing; the same in every figure."""
_OTHER_APPEARANCE = (("#000000", "X"), ("#56B4E9", "P"), ("#7F7F7F", "h"))
_DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)

_WITHOUT_EFFECT = {"seed", "progress", "resume", "checkpoint_interval", "dataset.download"}
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


@dataclass(frozen=True)
class Curve:
    """Runs that differ only in their seed, as one line.

    Args:
        label: for the legend.
        algorithm: its canonical name.
        setting: `label` without the algorithm and the number of seeds; may be empty.
        seeds: in ascending order.
        x: rounds, or mean loads in MB.
        mean: over seeds, at each x.
        low: the least of the seeds, at each x.
        high: the greatest.
    """

    label: str
    algorithm: str
    setting: str
    seeds: tuple[int, ...]
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


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


def over_seeds(runs: Sequence[Run], x: X, y: Y) -> list[Curve]:
    """One curve for all runs that differ only in their seed, at the rounds that all of them have.

    Against load, x is the mean load of the seeds after each of these rounds.

    Of each setting and seed there must be one run (see `without_repeats`).

    Raises:
        UserError: a run has no value of `y`, or the runs of a curve have no round in common.
    """
    by_setting: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        by_setting.setdefault(tuple(run.settings.items()), []).append(run)
    found = [_curve(group, x, y) for group in by_setting.values()]
    if len({len(curve.seeds) for curve in found}) > 1:
        found = [replace(c, label=f"{c.label}, {_count(len(c.seeds), 'seed')}") for c in found]
    order = list(APPEARANCE)
    return sorted(
        found,
        key=lambda c: (
            order.index(c.algorithm) if c.algorithm in order else len(order),
            c.algorithm,
            _by_number(c.setting),
        ),
    )


def draw(axes: "Axes", curves: Sequence[Curve], x: X, y: Y) -> None:
    """Draw curves, with the range over seeds as a band, and name the axes; the legend is the figure's.

    Raises:
        UserError: more curves than can be told apart.
    """
    appearance = _appearance(curves)
    settings = sorted({curve.setting for curve in curves}, key=_by_number)
    if len(settings) > len(_DASHES):
        raise UserError("settings drawn", len(settings), f"at most {len(_DASHES)} in a figure")
    for i, curve in enumerate(curves):
        colour, marker = appearance[curve.algorithm]
        # SplitFed v1 is FedAvg by design: a curve that later ones would cover shows on both sides of them.
        covered = sum(_coincide(curve, later) for later in curves[i + 1 :])
        step = max(1, len(curve.x) // 8)
        axes.plot(
            curve.x,
            curve.mean,
            label=curve.label,
            color=colour,
            linestyle=_DASHES[settings.index(curve.setting)],
            linewidth=1.3 + 1.8 * covered,
            marker=marker,
            markersize=4 + 2.5 * covered,
            markeredgewidth=0,
            markevery=(i * step // len(curves), step),
        )
        if len(curve.seeds) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel(AXIS_LABELS[x], fontsize=9)
    axes.set_ylabel(AXIS_LABELS[y], fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=6, integer=x == "round")
    if x == "load":
        axes.set_xlim(left=0)
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def figure(curves: Sequence[Curve], x: X, y: Y) -> "Figure":
    """One axes with its legend below, 3.5 inches wide: a column of a paper.

    Raises:
        UserError: matplotlib is not installed, or there are more curves than can be told apart.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            "matplotlib", "missing", "needed to draw figures; pip install 'fedsplit[plot]'"
        ) from error
    drawn = Figure(figsize=(3.5, 2.4), dpi=200, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    draw(axes, curves, x, y)
    lines = axes.get_lines()
    labels = [_wrapped(curve.label) for curve in curves]
    for columns in (3, 2, 1):
        legend = drawn.legend(
            lines,
            labels,
            loc="outside lower center",
            ncols=columns,
            title=_seeds_drawn(curves),
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            handlelength=2.8,
            columnspacing=1.0,
            borderpad=0.1,
            labelspacing=0.3,
        )
        extent = legend.get_window_extent()
        if extent.width <= drawn.bbox.width or columns == 1:
            break
        legend.remove()
    drawn.set_figheight(2.4 + extent.height / drawn.dpi)  # the legend takes nothing from the axes
    return drawn


def _load(path: Path) -> Run:
    if not is_run(path):
        raise UserError("run", path, f"must be the directory of a run, with {' and '.join(RUN_FILES)}")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
        with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
            columns = _columns(path, csv.DictReader(file))
    except UserError:
        raise  # it is a ValueError too
    except OSError as error:
        raise UserError("run", path, f"must be readable ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, csv.Error) as error:
        raise UserError("run", path, f"{' and '.join(RUN_FILES)} must not be damaged") from error
    match config:
        case {"choices": {"algorithm": str()}, "seed": int()}:
            run = Run(path, config, "", columns)
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


def _curve(runs: Sequence[Run], x: X, y: Y) -> Curve:
    values = [run.values(y) for run in runs]
    common = sorted(set.intersection(*(set(value) for value in values)))
    if not common:
        raise UserError("run", runs[0].path, f"must share a round with a {y} with its other seeds")
    at_round = [[value[t] for value in values] for t in common]
    xs = [float(t) for t in common]
    if x == "load":
        loads = [run.values("load") for run in runs]
        xs = [fmean(load[t] for load in loads) / 1e6 for t in common]
    label, algorithm = runs[0].label, runs[0].algorithm
    return Curve(
        label=label,
        algorithm=algorithm,
        setting=label.removeprefix(algorithm).removeprefix(", "),
        seeds=tuple(sorted(run.config["seed"] for run in runs)),
        x=tuple(xs),
        mean=tuple(fmean(each) for each in at_round),
        low=tuple(min(each) for each in at_round),
        high=tuple(max(each) for each in at_round),
    )


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


def _by_number(text: str) -> list[tuple[float, str]]:
    """A sort key by which 2 comes before 10, and 0.1 before 0.3."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def _appearance(curves: Sequence[Curve]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every algorithm drawn."""
    others = sorted({curve.algorithm for curve in curves} - APPEARANCE.keys())
    if len(others) > len(_OTHER_APPEARANCE):
        allowed = f"at most {len(_OTHER_APPEARANCE)} in a figure beside {', '.join(APPEARANCE)}"
        raise UserError("algorithms drawn", ", ".join(others), allowed)
    return APPEARANCE | dict(zip(others, _OTHER_APPEARANCE, strict=False))


def _coincide(one: Curve, other: Curve) -> bool:
    """Whether one line would cover the other: within half a percent of their height everywhere."""
    within = 0.005 * max(abs(value) for value in one.mean)
    return one.x == other.x and all(abs(a - b) <= within for a, b in zip(one.mean, other.mean, strict=True))


def _wrapped(label: str) -> str:
    """A label in lines that fit the width of the figure, broken only between its pieces."""
    pieces = label.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return fill(pieces, 44, break_on_hyphens=False)


def _seeds_drawn(curves: Sequence[Curve]) -> str | None:
    """What line and band stand for; None without bands."""
    counts = {len(curve.seeds) for curve in curves}
    if counts == {1}:
        return None
    return f"Mean and range of {_count(counts.pop(), 'seed') if len(counts) == 1 else 'seeds'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
