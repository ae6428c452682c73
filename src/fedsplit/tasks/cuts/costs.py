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
from fedsplit.reports.shown_table import print_table

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


_EXACT = (
    "smashed_bytes",
    "client_bytes",
    "server_bytes",
    "auxiliary_bytes",
    "client_macs",
    "server_macs",
    "memory_bytes",
    "held_bytes",
)
_SHOWN = ("z", "client", "server", "auxiliary", "client MMAC", "server MMAC", "client memory", "held")


def print_csv(found: Sequence[CutCosts]) -> None:
    """Print comma-separated values, in whole bytes and multiply-adds."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ["cut", "stage", "tensors", *_EXACT, *(f"load_{name}" for name in _algorithms_with_load(found))]
    )
    for cut in found:
        stage = "" if cut.stage is None else cut.stage
        loads = (f"{load:.0f}" for load in cut.load.values())
        writer.writerow([cut.name, stage, cut.tensors, *(getattr(cut, key) for key in _EXACT), *loads])


def print_markdown(found: Sequence[CutCosts], about: str) -> None:
    """Print a Markdown table in millions, and above it what it is about."""
    header = ["cut", "stage", "tensors", *_SHOWN, *_algorithms_with_load(found)]
    print(f"{about}\n")
    print(f"| {' | '.join(header)} |")
    print("|---" + "|--:" * (len(header) - 1) + "|")
    for row in _rows(found):
        print(f"| {' | '.join(row)} |")


def print_shown(found: Sequence[CutCosts], about: str) -> None:
    """Print a table for a terminal in millions, and above it what it is about."""
    table = Table()
    table.add_column("cut", no_wrap=True)
    for column in ("stage", "tensors", *_SHOWN, *_algorithms_with_load(found)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(found):
        table.add_row(*row)
    console = Console()
    console.print(about, soft_wrap=True, highlight=False)
    print_table(table, console)


def _algorithms_with_load(found: Sequence[CutCosts]) -> Sequence[str]:
    """The algorithms that tell their load."""
    return list(found[0].load) if found else []


def _rows(found: Sequence[CutCosts]) -> list[list[str]]:
    return [
        [
            cut.name,
            "" if cut.stage is None else str(cut.stage),
            str(cut.tensors),
            *(_millions(getattr(cut, key)) for key in _EXACT),
            *map(_millions, cut.load.values()),
        ]
        for cut in found
    ]


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
    return [(alike[0], *looks[alike[0]], wrap_label(", ".join(alike), 32)) for alike in names.values()]
