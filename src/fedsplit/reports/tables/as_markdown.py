"""A table for people, as GitHub and most others show Markdown."""

import re
from collections.abc import Iterable

from fedsplit.reports.tables.table import Shown, Table


def as_markdown(table: Table) -> str:
    """Title and description, the table, and how it is to be read."""
    names = table.names()
    head = [*names, *(column.title for column in table.columns)]
    rule = ["---:" if title == "Seeds" else "---" for title in names] + ["---:"] * len(table.columns)
    rows = [[*map(_escaped, own.values()), *map(_number, cells)] for own, cells in table.lines()]
    lines = "\n".join(map(_line, [map(_escaped, head), rule, *rows]))
    parts = [f"**{_escaped(table.title)}**", _escaped(table.description), lines, _escaped(table.note())]
    return "\n\n".join(filter(None, parts)) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(cell: Shown) -> str:
    number = f"**{cell.mean}**" if cell.best else cell.mean
    deviation = f" ± {cell.deviation}" if cell.deviation else ""
    return number + deviation + (f" ({cell.reached})" if cell.reached else "")


def _escaped(text: str) -> str:
    """As it stands. An underscore inside a word needs no backslash, which would only be in the way."""
    special = r"[\\`*|<>\[\]~&^#$]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(special, lambda found: f"\\{found[0]}", " ".join(text.split()))
