"""Rows of tables that the jobs of a sweep left, gathered into one table."""

from collections.abc import Sequence
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_table
from fedsplit.files.whole import write_csv
from fedsplit.sweeps.record import Job, differing


def gather(directory: Path, jobs: Sequence[Job], name: str) -> list[dict[str, str]]:
    """Write the rows of all jobs that left a table into the sweep's directory, under the table's own name.

    Args:
        directory: directory of the sweep.
        name: name of the CSV file, below the directory of each job.

    Returns:
        Cells of each row by column; before those of the table stand those of the job: its number, and the
        values of the keys by which jobs differ.

    Raises:
        UserError: a table is damaged.
    """
    rows: list[dict[str, str]] = []
    for job, overrides in zip(jobs, differing(jobs), strict=True):
        path = directory / job.directory / name
        if not path.is_file():
            continue
        keys = dict(each.lstrip("+").partition("=")[::2] for each in overrides)
        try:
            _, found = csv_table(path)
            rows += [{"job": str(job.number), **keys, **cells} for _, cells in found]
        except (OSError, ValueError) as error:
            raise UserError("hydra.sweep.dir", path, f"is damaged: {error}") from error
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if rows:
        write_csv(directory / Path(name).name, columns, ([row.get(key) for key in columns] for row in rows))
    return rows
