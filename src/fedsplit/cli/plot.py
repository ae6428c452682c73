"""The plot command: draws figures, and makes tables, of what runs left behind."""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedsplit.cli.plot_arguments import OPTIONS, asked_for, listed_experiments, parsed
from fedsplit.errors import UserError
from fedsplit.reports.drawing import StoredRuns, draw, image_files, tabulate, write
from fedsplit.reports.experiments import experiments_in, formats_of
from fedsplit.reports.figures.figure_type import Drawn
from fedsplit.reports.notes import NOTES, Notes
from fedsplit.reports.page import page
from fedsplit.reports.tables.files import table_files


def main() -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 0, 2 for a mistake in what was asked, or 130 where it was interrupted.
    """
    try:
        arguments = parsed(sys.argv[1:])
        return (plot_runs if arguments.places or arguments.runs else plot_experiments)(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def noting(out: Path) -> Iterator[Notes]:
    """Notes, said at the end in three lines at most on standard error; what that does not hold, in a file.

    The file is beside the figures, and not written where nothing can be drawn.
    """
    notes = Notes()
    file: Path | None = None
    try:
        yield notes
        file = out / NOTES
        if not notes.few:
            write({NOTES: notes.content()}, out)
        elif file.is_file():
            file.unlink()  # tells of figures that were drawn before
    finally:
        for line in notes.lines(None if file is None else str(file)):
            print(f"note: {line}", file=sys.stderr)


def plot_runs(arguments: Namespace) -> int:
    """Draw the runs given, and print the paths written; the exit code.

    Raises:
        UserError: something asked for cannot be drawn; then nothing is written.
    """
    experiments = asked_for(arguments)
    with noting(arguments.out) as notes:
        runs = StoredRuns(notes).given([*arguments.places, *(arguments.runs or [])], "RUN_DIR")
        for each in experiments:
            for run in runs:
                each.figure.check(run)
        figures = [draw(each, runs, each.formats) for each in experiments]
        note_left_out(figures, notes)
        publish(map(image_files, figures), arguments.out)
    return 0


def plot_experiments(arguments: Namespace) -> int:
    """Draw the experiments listed, and their page; where one cannot be drawn, say so and draw the others.

    Returns:
        The exit code.

    Raises:
        UserError: the list is wrong, or nothing in it has a run; then nothing is written.
    """
    for key in ("figure", *OPTIONS):
        if getattr(arguments, key) is not None:
            raise UserError("RUN_DIR", None, f"--{key} needs the runs to draw")
    with noting(arguments.out) as notes:
        return _plot_experiments(arguments, notes)


def _plot_experiments(arguments: Namespace, notes: Notes) -> int:
    formats = formats_of("--format", arguments.format) if arguments.format else None
    listed, stored = listed_experiments(), StoredRuns(notes)
    found = [(each, runs) for each in experiments_in(listed) if (runs := stored.selected(each))]
    stored.tell_missing()
    if not found:
        raise UserError("experiments", listed, "no experiment in it has a run to draw")
    exit_code, drawn, failures = 0, [], []
    for each, runs in found:
        try:
            drawn.append(draw(each, runs, formats or each.formats))
        except UserError as error:
            if error.key == "matplotlib":
                raise
            failures.append(f"{each.name}: not drawn: {error}")
            print(f"error: {failures[-1]}", file=sys.stderr)
            exit_code = error.exit_code
    tables = [table for each, runs in found for table in tabulate(each, runs)]
    note_left_out(drawn, notes)
    whole = page(drawn, tables, missing=[*notes.texts, *failures], folder=arguments.out)
    publish([*map(image_files, drawn), *map(table_files, tables), {"index.html": whole}], arguments.out)
    return exit_code


def note_left_out(figures: Iterable[Drawn], notes: Notes) -> None:
    """Note what is left out of figures because they would hold more than can be told apart."""
    for each in figures:
        for label in each.left_out:
            notes.add("crowded", f"{each.name}: left out, for want of room: {label}")


def publish(files: Iterable[Mapping[str, bytes]], out: Path) -> None:
    """Write files and print their paths."""
    for each in files:
        for path in write(each, out):
            print(path)
