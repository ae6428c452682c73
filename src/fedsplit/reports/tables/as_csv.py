"""A table for programs: numbers in full, in bytes, seconds and fractions."""

import csv
from io import StringIO

from fedsplit.reports.tables.table import Table


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
