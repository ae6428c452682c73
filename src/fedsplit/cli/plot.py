"""The plot command: draws figures, and makes tables, of what runs left behind."""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml
from typing_extensions import override

from fedsplit.config.commands import command
from fedsplit.errors import UserError
from fedsplit.files.paths import shipped_path, user_path
from fedsplit.reports.drawing import StoredRuns, draw, image_files, tabulate, write
from fedsplit.reports.experiments import FigureRequest, experiments_in, figure_type, formats_of
from fedsplit.reports.figures.figure_type import RenderedFigure
from fedsplit.reports.figures.types import FIGURE_TYPES
from fedsplit.reports.notes import NOTES, Notes
from fedsplit.reports.page import page
from fedsplit.reports.tables.files import table_files
from fedsplit.reports.tables.table import TableRequest, accuracies, table_of

EXPERIMENTS = "exp_configs.yaml"
OPTIONS = ("x", "y", "by", "at", "of", "size", "targets", "log", "spread")
"""Keys of figures that can be given on the command line."""
_DESCRIPTION = """\
Draws figures of runs, as wide as a column of a paper; by itself test accuracy against rounds and against
communication load (MB = 10^6 bytes). Runs that differ only in their seed become one line, with a band.

  {plot}                       all experiments of {experiments}, and index.html of them all
  {plot} saves/multirun/A/B    all runs of a sweep
  {plot} --runs 'saves/multirun/A/*' --x load --y accuracy --by algorithm --out figures
  {plot} saves/multirun/A/B --x load --table 0.8,0.9    and a table, with the load to 80 % and 90 %
  {plot} saves/RUN --figure confusion --format png,pdf

figures, whose keys docs/plots.md explains:
{types}"""


class _Parser(ArgumentParser):
    command_line: Sequence[str] = ()

    @override
    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments") and "--table" in self.command_line:
            message += "; accuracies are joined by commas, as --table 0.8,0.9"
        raise UserError("arguments", " ".join(self.command_line), message)


def parse_arguments(given: Sequence[str]) -> Namespace:
    """Parse the command line; `UserError` where it is wrong."""
    types = "\n".join(f"  {name:<10} {type_.summary}" for name, type_ in FIGURE_TYPES.items())
    description = _DESCRIPTION.format(
        plot=command(name="fedsplit-plot"), experiments=EXPERIMENTS, types=types
    )
    parser = _Parser(description=description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.command_line = given
    add = parser.add_argument
    add("places", nargs="*", metavar="RUN_DIR", help="run directory, folder of such, or glob")
    add("--runs", nargs="+", metavar="RUN_DIR", help="the same, among options")
    add("--figure", metavar="TYPE", help="one of the above (default: curve)")
    add("--x", metavar="KEY", help="horizontal axis: round, load, ..., or a setting")
    add("--y", metavar="COLUMN", help="vertical axis: accuracy, loss or a column of metrics.csv")
    add("--by", metavar="KEY", help="what colours tell apart (default: algorithm)")
    add("--targets", type=_list, metavar="Y,...", help="mark where curves reach these")
    table = "also a table of the runs, for LaTeX, Markdown and as CSV; load to these accuracies"
    add("--table", type=_list, nargs="?", const=[], metavar="ACCURACY,...", help=table)
    add("--log", type=_list, metavar="AXIS,...", help="logarithmic: x, y or x,y")
    add("--at", metavar="MOMENT", help="which y: final (default), best, or load:100 (MB)")
    add("--of", metavar="WHAT", help="what bars show: bytes or seconds")
    add("--spread", metavar="WHAT", help="of seeds: range (default) or interval")
    add("--size", metavar="KEY", help="what sizes in a scatter stand for")
    add(
        "--classes", dest="figure", action="store_const", const="classes", help="the same as --figure classes"
    )
    add("--format", type=_list, metavar="png,pdf,svg", help="file formats (default: png)")
    add(
        "--out",
        type=Path,
        default=Path("saves/plots"),
        metavar="DIR",
        help="where files go (default: %(default)s)",
    )
    arguments = parser.parse_args(given)
    arguments.out = user_path(arguments.out, "--out")
    return arguments


def experiments_file() -> Path:
    """Path of `exp_configs.yaml`: that of the working directory, or else the one in the package."""
    own = Path(EXPERIMENTS)
    return own if own.exists() else shipped_path(EXPERIMENTS)


def requested_figures(arguments: Namespace) -> list[FigureRequest]:
    """Figures that the command line asks for.

    Raises:
        UserError: there is no such figure, or not with such settings.
    """
    settings = {key: value for key in OPTIONS if (value := getattr(arguments, key)) is not None}
    type_ = arguments.figure or "curve"
    several = [settings]
    if type_ == "curve" and "x" not in settings:
        several = [{**settings, "x": x} for x in ("round", "load")]
    figures = [figure_type(type_, each, "--") for each in several]
    formats = formats_of("--format", arguments.format or ["png"])
    return [FigureRequest(each.name, each, each.name, "", (), {}, {}, formats) for each in figures]


def _list(text: str) -> list[object]:
    """Comma-separated values: numbers, or texts."""
    return [yaml.safe_load(each) if each[:1].isdigit() else each for each in text.split(",")]


def main() -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 0, 2 for a mistake in what was asked, or 130 where it was interrupted.
    """
    try:
        arguments = parse_arguments(sys.argv[1:])
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
    experiments = requested_figures(arguments)
    wanted = None if arguments.table is None else TableRequest(accuracies("--table", arguments.table))
    with noting(arguments.out) as notes:
        places = [*arguments.places, *(arguments.runs or [])]
        runs = StoredRuns(notes, arguments.out).read_runs(places, "RUN_DIR")
        for each in experiments:
            for run in runs:
                each.figure.check(run)
        figures = [draw(each, runs, each.formats) for each in experiments]
        note_left_out(figures, notes)
        title = f"Runs below {', '.join(places)}"
        tables = [] if wanted is None else [table_of(wanted, runs, name="table", title=title)]
        publish([*map(image_files, figures), *map(table_files, tables)], arguments.out)
    return 0


def plot_experiments(arguments: Namespace) -> int:
    """Draw the experiments listed, and their page; where one cannot be drawn, say so and draw the others.

    Returns:
        The exit code.

    Raises:
        UserError: the list is wrong, or nothing in it has a run; then nothing is written.
    """
    for key in ("figure", "table", *OPTIONS):
        if getattr(arguments, key) is not None:
            raise UserError("RUN_DIR", None, f"--{key} needs the runs to draw")
    with noting(arguments.out) as notes:
        return _plot_experiments(arguments, notes)


def _plot_experiments(arguments: Namespace, notes: Notes) -> int:
    formats = formats_of("--format", arguments.format) if arguments.format else None
    listed, stored = experiments_file(), StoredRuns(notes, arguments.out)
    found = [(each, runs) for each in experiments_in(listed) if (runs := stored.select_runs(each))]
    stored.tell_missing()
    if not found:
        message = "no experiment in it has a run to draw; RUN_DIR draws whatever runs are there: "
        message += f"{command(name='fedsplit-plot')} saves"
        raise UserError("experiments", listed, message)
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


def note_left_out(figures: Iterable[RenderedFigure], notes: Notes) -> None:
    """Note what is left out of figures because they would hold more than can be told apart."""
    for each in figures:
        for label in each.left_out:
            notes.add("crowded", f"{each.name}: left out, because there is no room: {label}")


def publish(files: Iterable[Mapping[str, bytes]], out: Path) -> None:
    """Write files and print their paths."""
    for each in files:
        for path in write(each, out):
            print(path)
