"""The files of a table, one a format."""

from collections.abc import Callable, Mapping

from fedsplit.reports.tables.as_csv import as_csv
from fedsplit.reports.tables.as_latex import as_latex
from fedsplit.reports.tables.as_markdown import as_markdown
from fedsplit.reports.tables.table import Table

FORMATS: Mapping[str, Callable[[Table], str]] = {"md": as_markdown, "tex": as_latex, "csv": as_csv}
"""By the ending of a file."""


def table_files(table: Table) -> dict[str, bytes]:
    """Their content in UTF-8, by name."""
    return {
        f"{table.name}.{ending}": write(table).encode("utf-8", "surrogateescape")
        for ending, write in FORMATS.items()
    }
