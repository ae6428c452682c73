"""What one cut of a model costs, and tables of that: comma-separated, in Markdown, for a terminal."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from rich.console import Console
from rich.table import Table

from fedsplit.reports.shown_table import print_table


@dataclass(frozen=True)
class CutCosts:
    """Of one cut.

    Args:
        stage: its number; None where it is no stage.
        tensors: that cross.
        smashed_bytes: of one sample, as float32.
        client_bytes: of the client model's state.
        server_bytes: of the server model's state.
        auxiliary_bytes: of the state of an auxiliary model that is derived from the server model.
        client_macs: multiply-adds of the client model's forward pass for one sample.
        server_macs: of the server model's.
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
    load: dict[str, float]


_EXACT = (
    "smashed_bytes",
    "client_bytes",
    "server_bytes",
    "auxiliary_bytes",
    "client_macs",
    "server_macs",
)
_SHOWN = ("z", "client", "server", "auxiliary", "client MMAC", "server MMAC")


def print_csv(found: Sequence[CutCosts]) -> None:
    """Print comma-separated values, in whole bytes and multiply-adds."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["cut", "stage", "tensors", *_EXACT, *(f"load_{name}" for name in _loaded(found))])
    for cut in found:
        stage = "" if cut.stage is None else cut.stage
        loads = (f"{load:.0f}" for load in cut.load.values())
        writer.writerow([cut.name, stage, cut.tensors, *(getattr(cut, key) for key in _EXACT), *loads])


def print_markdown(found: Sequence[CutCosts], about: str) -> None:
    """Print a Markdown table in millions, and above it what it is about."""
    header = ["cut", "stage", "tensors", *_SHOWN, *_loaded(found)]
    print(f"{about}\n")
    print(f"| {' | '.join(header)} |")
    print("|---" + "|--:" * (len(header) - 1) + "|")
    for row in _rows(found):
        print(f"| {' | '.join(row)} |")


def print_shown(found: Sequence[CutCosts], about: str) -> None:
    """Print a table for a terminal in millions, and above it what it is about."""
    table = Table()
    table.add_column("cut", no_wrap=True)
    for column in ("stage", "tensors", *_SHOWN, *_loaded(found)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(found):
        table.add_row(*row)
    console = Console()
    console.print(about, soft_wrap=True, highlight=False)
    print_table(table, console)


def _loaded(found: Sequence[CutCosts]) -> Sequence[str]:
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
    """With three digits that count, or all before the point."""
    millions = number / 1e6
    return f"{millions:,.{max(0, 2 - floor(log10(millions))) if millions else 0}f}"
