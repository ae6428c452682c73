"""The files of a table: for people in Markdown, for programs in CSV, for papers in LaTeX."""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from io import StringIO

from fedsplit.reports.tables.as_latex import as_latex
from fedsplit.reports.tables.table import Table, TableCell


def as_markdown(table: Table) -> str:
    """Title, the table, and how it is to be read."""
    names = table.names()
    head = [*names, *(column.title for column in table.columns)]
    rule = ["---:" if title == "Seeds" else "---" for title in names] + ["---:"] * len(table.columns)
    rows = [[*map(_escape, own.values()), *map(_number, cells)] for own, cells in table.lines()]
    lines = "\n".join(map(_line, [map(_escape, head), rule, *rows]))
    parts = [f"**{_escape(table.title)}**", lines, _escape(table.note())]
    return "\n\n".join(filter(None, parts)) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(cell: TableCell) -> str:
    number = f"**{cell.mean}**" if cell.best else cell.mean
    spread = f" ± {cell.spread}" if cell.spread else ""
    return number + spread + (f" ({cell.share_at_target})" if cell.share_at_target else "")


def _escape(text: str) -> str:
    """Text as it stands. An underscore inside a word needs no backslash, which would only be in the way."""
    special = r"[\\`*|<>\[\]~&^#$]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(special, lambda found: f"\\{found[0]}", " ".join(text.split()))


def as_csv(table: Table) -> str:
    """A row a setting; of each column its mean and standard deviation over seeds, and how many seeds have it.

    A cell is empty where there is no such number. Seeds are separated by spaces.
    """
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    parts = ("mean", "std", "seeds")
    keys = [f"{column.key}.{part}" for column in table.columns for part in parts]
    rows.writerow(["algorithm", "setting", "seeds", *keys])
    for row in table.rows:
        numbers = [each for cell in row.cells for each in (cell.mean, cell.deviation, len(cell.values))]
        rows.writerow([row.algorithm, row.setting, " ".join(map(str, row.seeds)), *numbers])
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": as_markdown, "tex": as_latex, "csv": as_csv}
"""Formats of tables, by the ending of the file's name."""


def table_files(table: Table) -> dict[str, bytes]:
    """Content of a table's files in UTF-8, by name."""
    return {
        f"{table.name}.{ending}": write(table).encode("utf-8", "surrogateescape")
        for ending, write in FORMATS.items()
    }
