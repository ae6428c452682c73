"""Prints tables: in a file as wide as they need to be, on a terminal in parts that fit."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text


def print_table(table: Table, console: Console | None = None, names: int = 1) -> None:
    """Print a table on standard output, with no word of it broken.

    Where a terminal is too narrow, it is printed as several, one below the other.

    Args:
        names: first columns, which tell rows apart: each of several tables has them.
    """
    console = console or Console()
    table = _of(table, [_whole(column, console) for column in table.columns])
    unlimited = console.options.update(max_width=10_000)
    wide = Measurement.get(console, unlimited, table).maximum
    if wide <= console.width:
        console.print(table)
        return
    for part in _parts(table, console, names) if console.is_terminal else [table]:
        measured = Measurement.get(console, unlimited, part)
        fitting = max(measured.minimum, min(measured.maximum, console.width))
        width = fitting if console.is_terminal else measured.maximum
        # a word that is wider than the terminal is left to it to wrap: so it can be copied in one piece
        Console(file=console.file, width=width).print(part)


def fits(table: Table, console: Console) -> bool:
    """True if no cell of a table needs more than a line: in a file, and on a terminal that is wide enough."""
    unlimited = console.options.update(max_width=10_000)
    return not console.is_terminal or Measurement.get(console, unlimited, table).maximum <= console.width


def _parts(table: Table, console: Console, names: int) -> Iterator[Table]:
    """The table's columns in as few tables as fit, each with the first ones."""
    first, others = table.columns[:names], table.columns[names:]
    taken: list[Column] = []
    for column in others:
        if taken and not _fits(_of(table, [*first, *taken, column]), console):
            yield _of(table, [*first, *taken], caption=False)
            taken = []
        taken.append(column)
    yield _of(table, [*first, *taken])


def _fits(table: Table, console: Console) -> bool:
    unlimited = console.options.update(max_width=10_000)
    return Measurement.get(console, unlimited, table).minimum <= console.width


def _whole(column: Column, console: Console) -> Column:
    """A column that is as wide as its widest line, if its lines must not be broken: rich would cut them."""
    if not column.no_wrap:
        return column
    cells = [console.render_str(each) if isinstance(each, str) else each for each in column.cells]
    heading = console.render_str(column.header) if isinstance(column.header, str) else column.header
    lines = [line for cell in (heading, *cells) if isinstance(cell, Text) for line in cell.split() or [cell]]
    return replace(column, min_width=max(line.cell_len for line in lines))


def _of(table: Table, columns: Sequence[Column], *, caption: bool = True) -> Table:
    made = copy(table)
    made.columns = [replace(column, _index=index) for index, column in enumerate(columns)]
    made.caption = table.caption if caption else None
    return made
