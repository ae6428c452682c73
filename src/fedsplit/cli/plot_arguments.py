"""Arguments of the plot command."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from fedsplit.config.commands import command
from fedsplit.errors import UserError
from fedsplit.files.paths import shipped, user_path
from fedsplit.reports.experiments import FigureRequest, figure_type, formats_of
from fedsplit.reports.figures.types import FIGURE_TYPES

EXPERIMENTS = "exp_configs.yaml"
OPTIONS = ("x", "y", "by", "at", "of", "size", "targets", "log")
"""Keys of figures that can be given on the command line."""
_DESCRIPTION = """\
Draws figures of runs, as wide as a column of a paper; by itself test accuracy against rounds and against
communication load (MB = 10^6 bytes). Runs that differ only in their seed become one line, with a band.

  {plot}                       all experiments of {experiments}, and index.html of them all
  {plot} saves/multirun/A/B    all runs of a sweep
  {plot} --runs 'saves/multirun/A/*' --x load --y accuracy --by algorithm --out figures
  {plot} saves/RUN --figure confusion --format png,pdf

figures, whose keys docs/plots.md explains:
{types}"""


class _Parser(ArgumentParser):
    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        raise UserError("arguments", " ".join(self.given), message)


def parsed(given: Sequence[str]) -> Namespace:
    """The arguments, read.

    Raises:
        UserError: they are wrong.
    """
    types = "\n".join(f"  {name:<10} {type_.summary}" for name, type_ in FIGURE_TYPES.items())
    description = _DESCRIPTION.format(
        plot=command(name="fedsplit-plot"), experiments=EXPERIMENTS, types=types
    )
    parser = _Parser(description=description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.given = given
    add = parser.add_argument
    add("places", nargs="*", metavar="RUN_DIR", help="run directory, folder of such, or glob")
    add("--runs", nargs="+", metavar="RUN_DIR", help="the same, among options")
    add("--figure", metavar="TYPE", help="one of the above; default: curve")
    add("--x", metavar="KEY", help="what is across: round, load, ...; or the setting")
    add("--y", metavar="COLUMN", help="of metrics.csv; accuracy and loss: of test images")
    add("--by", metavar="KEY", help="group or key that colours stand for, not algorithm")
    add("--targets", type=_list, metavar="Y,...", help="mark where curves reach these")
    add("--log", type=_list, metavar="AXIS,...", help="logarithmic: x, y or x,y")
    add("--at", metavar="MOMENT", help="of y: final (the default), best or load:100")
    add("--of", metavar="WHAT", help="of bars: bytes or seconds")
    add("--size", metavar="KEY", help="of a scatter: what sizes stand for")
    add("--classes", dest="figure", action="store_const", const="classes", help="a --figure")
    add("--format", type=_list, metavar="png,pdf,svg", help="not png, or what experiments say")
    add("--out", type=Path, default=Path("saves/plots"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args(given)
    arguments.out = user_path(arguments.out, "--out")
    return arguments


def listed_experiments() -> Path:
    """`exp_configs.yaml` of the working directory; where there is none, that which the package comes with."""
    own = Path(EXPERIMENTS)
    return own if own.exists() else shipped(EXPERIMENTS)


def asked_for(arguments: Namespace) -> list[FigureRequest]:
    """The figures that the command line asks for.

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
