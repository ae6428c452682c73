"""Costs of one cut of a model: as tables (comma-separated, Markdown, for a terminal), and in a figure."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fedsplit.reports.figures.style import appearance, blank_figure, legend_below, log_axis, tidy, wrap_label
from fedsplit.reports.figures.wording import in_words
from fedsplit.reports.shown_table import fits, print_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CutCosts:
    """Costs of one cut.

    Args:
        stage: number of the stage; None where it is none.
        tensors: number of tensors that cross.
        smashed_bytes: bytes of one sample, as float32.
        client_bytes: bytes of the client model's state.
        server_bytes: bytes of the server model's state.
        auxiliary_bytes: bytes of the state of an auxiliary model that is derived from the server model.
        client_macs: multiply-adds of the client model's forward pass for one sample.
        server_macs: multiply-adds of the server model's forward pass.
        memory_bytes: memory of a client in its largest local step, with the algorithm of the configuration.
        held_bytes: part of these bytes that waits for a cut gradient.
        load: bytes a round, by algorithm.
    """

    name: str
    stage: int | None
    tensors: int
    smashed_bytes: int
    client_bytes: int
    server_bytes: int
    auxiliary_bytes: int
    client_macs: int
    server_macs: int
    memory_bytes: int
    held_bytes: int
    load: dict[str, float]


_SIZES = {
    "stage": "stage",
    "tensors": "tensors",
    "smashed_bytes": "z",
    "client_bytes": "client",
    "server_bytes": "server",
    "auxiliary_bytes": "auxiliary",
    "client_macs": "client MMAC",
    "server_macs": "server MMAC",
    "memory_bytes": "client memory",
    "held_bytes": "held",
}
"""Columns beside the name of a cut, in their order, with titles for people."""
_LOAD = "load_"
_FIRST = ("stage", "smashed_bytes")
_NEXT = ("memory_bytes", "client_macs", "client_bytes")
_LAST = ("server_bytes", "held_bytes", "auxiliary_bytes", "server_macs", "tensors")


def column_names(algorithms: Sequence[str]) -> list[str]:
    """Names of all columns beside the cut's own, in their order."""
    return [*_SIZES, *(f"{_LOAD}{name}" for name in algorithms)]


def print_csv(found: Sequence[CutCosts], columns: Sequence[str]) -> None:
    """Print comma-separated values of columns, in whole bytes and multiply-adds."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["cut", *columns])
    for cut in found:
        values = [_value(cut, column) for column in columns]
        writer.writerow([cut.name, *("" if each is None else f"{each:.0f}" for each in values)])


def print_markdown(found: Sequence[CutCosts], columns: Sequence[str], about: str) -> None:
    """Print a Markdown table of columns in millions, and above it what it is about."""
    header = ["cut", *map(_title, columns)]
    print(f"{about}\n")
    print(f"| {' | '.join(header)} |")
    print("|---" + "|--:" * len(columns) + "|")
    for cut in found:
        print(f"| {' | '.join(_row(cut, columns))} |")


def print_shown(
    found: Sequence[CutCosts],
    columns: Sequence[str] | None,
    about: str,
    algorithm: str,
    console: Console | None = None,
) -> None:
    """Print a table in millions, and above it what it is about.

    Args:
        columns: those asked for; None: all, of which a terminal gets the most important that it has room for.
        algorithm: name of the algorithm whose load is more important than that of others.
    """
    console = console or Console()
    console.print(about, soft_wrap=True, highlight=False)
    every = column_names(list(found[0].load) if found else [])
    shown = every if columns is None else columns
    if columns is None and console.is_terminal:
        shown = _fitting(found, every, algorithm, console)
    print_table(_table(found, shown), console)
    if left_out := [column for column in every if column not in shown and columns is None]:
        told = f"no room for {', '.join(left_out)}: task.format=csv has all, 'task.columns=[...]' those named"
        console.print(told, soft_wrap=True, highlight=False, markup=False)


def _fitting(found: Sequence[CutCosts], every: Sequence[str], algorithm: str, console: Console) -> list[str]:
    """Columns that fit into a terminal, the most important first, in the order of all."""
    taken: list[str] = []
    for column in _by_importance(found, every, algorithm):
        wider = [each for each in every if each in (*taken, column)]
        if not fits(_table(found, wider), console):
            break
        taken = wider
    return taken


def _by_importance(found: Sequence[CutCosts], every: Sequence[str], algorithm: str) -> list[str]:
    """Columns, the most important first: last the loads that another column tells already."""
    loads = [column for column in every if column not in _SIZES]
    loads.sort(key=lambda column: column != f"{_LOAD}{algorithm}")  # stable
    different = {tuple(_value(cut, column) for cut in found): column for column in reversed(loads)}
    telling = [column for column in loads if column in different.values()]
    alike = [column for column in loads if column not in telling]
    return [*_FIRST, *telling[:1], *_NEXT, *telling[1:], *_LAST, *alike]


def _table(found: Sequence[CutCosts], columns: Sequence[str]) -> Table:
    table = Table()
    table.add_column("cut", no_wrap=True)
    for column in columns:
        table.add_column(_title(column).replace(" ", "\n"), justify="right", no_wrap=True)
    for cut in found:
        table.add_row(*_row(cut, columns))
    return table


def _title(column: str) -> str:
    return _SIZES.get(column, column.removeprefix(_LOAD))


def _value(cut: CutCosts, column: str) -> float | None:
    """The number in a cell; None of a cut that is no stage, and of an algorithm that tells no load."""
    if column in _SIZES:
        value: int | None = getattr(cut, column)
        return value
    return cut.load.get(column.removeprefix(_LOAD))


def _row(cut: CutCosts, columns: Sequence[str]) -> list[str]:
    return [cut.name, *(_cell(column, _value(cut, column)) for column in columns)]


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value}" if column in ("stage", "tensors") else _millions(value)


def _millions(number: float) -> str:
    """Millions with three digits that count, or all before the point."""
    millions = number / 1e6
    return f"{millions:,.{max(0, 2 - floor(log10(millions))) if millions else 0}f}"


def cut_figure(cuts: Sequence[CutCosts]) -> "Figure":
    """A line an algorithm through numbered stages, a dot for other cuts; `UserError` without matplotlib."""
    drawn = blank_figure(3.5, 3.0)
    axes = drawn.add_subplot()
    stages = sorted((cut for cut in cuts if cut.stage is not None), key=lambda cut: cut.stage or 0)
    others = [cut for cut in cuts if cut.stage is None]
    lines = []
    for name, colour, marker, label in _series(cuts):
        axes.plot(
            [cut.client_macs / 1e6 for cut in others],
            [cut.load[name] / 1e6 for cut in others],
            linestyle="",
            marker=marker,
            markersize=2.2,
            markeredgewidth=0,
            color=colour,
            alpha=0.45,
        )
        (line,) = axes.plot(
            [cut.client_macs / 1e6 for cut in stages],
            [cut.load[name] / 1e6 for cut in stages],
            label=label,
            color=colour,
            marker=marker,
            markersize=4.5,
            markeredgewidth=0,
            linewidth=1.3,
        )
        lines.append(line)
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis, wide=100, separator=",")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.6, high)
    for cut in stages:
        axes.annotate(
            str(cut.stage),
            (cut.client_macs / 1e6, min(cut.load.values()) / 1e6),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )
    tidy(axes, "Client's forward multiply-adds a sample (millions)", "Load a round (MB)")
    title = "Numbers: stages; small: other cuts" if others else "Numbers: stages"
    legend_below(drawn, lines, [str(line.get_label()) for line in lines], title)
    return drawn


def _series(cuts: Sequence[CutCosts]) -> list[tuple[str, str, str, str]]:
    """Name, colour, marker and label of each line: those that load the same at every cut share one."""
    names: dict[tuple[float, ...], list[str]] = {}
    for name in cuts[0].load:
        names.setdefault(tuple(cut.load[name] for cut in cuts), []).append(name)
    looks = appearance([alike[0] for alike in names.values()])
    return [
        (alike[0], *looks[alike[0]], wrap_label(", ".join(map(in_words, alike)), 32))
        for alike in names.values()
    ]
