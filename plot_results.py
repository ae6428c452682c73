"""Draws figures from what runs left behind (`python plot_results.py --help`)."""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from glob import glob
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from fedsplit.errors import UserError
from fedsplit.results import class_figure
from fedsplit.results.curves import Curve, figure, over_seeds
from fedsplit.results.runs import XS, YS, Run, X, Y, is_run, load_runs, without_repeats

if TYPE_CHECKING:  # matplotlib is imported only once all that was asked for is known to be right
    from matplotlib.figure import Figure

EXPERIMENTS = Path("exp_configs.yaml")
KEYS = ("runs", "x", "y")

DESCRIPTION = f"""\
Draws test accuracy against rounds and against communication load (MB = 10^6 bytes).

  python plot_results.py                      the experiments that {EXPERIMENTS} lists
  python plot_results.py saves/multirun/A/B   all runs of a sweep
  python plot_results.py 'saves/*/digits_cnn/digits/iid/*' --out figures
  python plot_results.py saves/RUN --classes  how many samples of each class each client had

Runs that differ only in their seed become one line: their mean, with a band from least to greatest."""


@dataclass(frozen=True)
class Experiment:
    """A figure to be drawn, `<name>.png`, of what `x` and `y` name, and the paths or globs of its runs."""

    name: str
    runs: Sequence[str]
    x: X
    y: Y


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError("arguments", " ".join(sys.argv[1:]), message)


def experiments_in(path: Path) -> list[Experiment]:
    """The experiments that a YAML file lists.

    Raises:
        UserError: the file cannot be read, or an experiment in it is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError("experiments", path, f"cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError("experiments", path, "must be YAML") from error
    if not isinstance(content, dict) or not content:
        raise UserError("experiments", path, "must hold name: {runs: [...], x: ..., y: ...}")
    return [_experiment(name, entry) for name, entry in content.items()]


def _experiment(name: object, entry: object) -> Experiment:
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError("experiment", name, "names a file: only letters, digits, '_', '-' and '.'")
    if not isinstance(entry, Mapping):
        raise UserError(name, entry, f"must have the keys {', '.join(KEYS)}")
    for key in entry:
        if key not in KEYS:
            raise UserError(f"{name}.{key}", entry[key], f"no such key; known: {', '.join(KEYS)}")
    runs: Any = entry.get("runs")
    x: Any = entry.get("x")
    y: Any = entry.get("y")
    if not isinstance(runs, list) or not runs or not all(isinstance(each, str) for each in runs):
        raise UserError(f"{name}.runs", runs, "must be a list of run directories or globs")
    if x not in XS:
        raise UserError(f"{name}.x", x, f"must be one of {', '.join(XS)}")
    if y not in YS:
        raise UserError(f"{name}.y", y, f"must be one of {', '.join(YS)}")
    return Experiment(name, runs, x, y)


@cache  # several figures may be drawn of the same runs
def note(text: str) -> None:
    """Say on standard error, once, what is left out."""
    print(f"note: {text}", file=sys.stderr)


def runs_at(place: str) -> list[Path]:
    """The runs that a path or a glob stands for: a run's own directory, or all runs of a sweep's."""
    found: list[Path] = []
    for path in [Path(place)] if Path(place).exists() else map(Path, sorted(glob(place, recursive=True))):
        if is_run(path):
            found.append(path)
        elif path.is_dir():
            folders = sorted(each for each in path.iterdir() if each.is_dir())
            jobs = [each for each in folders if is_run(each)]
            for each in folders if jobs else []:
                if each not in jobs:
                    note(f"{each}: not drawn, it is not the directory of a run")
            found += jobs
    return found


def read(places: Sequence[str], key: str, *, all_needed: bool) -> list[Run]:
    """The runs at these places, each once; what is left out is named on standard error.

    Raises:
        UserError: a place holds no run though it is needed, or a run is damaged.
    """
    paths: dict[Path, Path] = {}
    for place in places:
        try:
            found = runs_at(place)
        except OSError as error:
            raise UserError(key, place, f"must be readable ({error.strerror})") from error
        paths |= {path.resolve(): path for path in found}
        if not found:
            allowed = "a run directory (with config.yaml and metrics.csv), a sweep's, or a glob of such"
            missing = UserError(key, place, f"holds no run; must be {allowed}")
            if all_needed:
                raise missing
            note(str(missing))
    runs, repeats = without_repeats(load_runs(list(paths.values())))
    for path, by in repeats.items():
        note(f"{path}: not drawn, {by} has the same settings and seed")
    return runs


def write(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    image = BytesIO()
    figure.savefig(image, format="png")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(image.getvalue())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            "--out", path.parent, f"must be a directory to write to ({error.strerror})"
        ) from error


def plot_classes(places: Sequence[str], out: Path) -> None:
    """Draw how the data of the runs given were divided over clients, and print the path written.

    Raises:
        UserError: no run is given, or one cannot be drawn; then nothing is written.
    """
    if not places:
        raise UserError("RUN_DIR", None, "--classes needs the runs to draw")
    path = out / "classes.png"
    write(class_figure.figure(class_figure.divisions(read(places, "RUN_DIR", all_needed=True))), path)
    print(path)


def plot(places: Sequence[str], out: Path) -> None:
    """Draw the runs given, or else the experiments listed, and print the paths written.

    Raises:
        UserError: something asked for cannot be drawn; then nothing is written.
    """
    drawn: list[tuple[str, list[Curve], X, Y]] = []
    if places:
        runs = read(places, "RUN_DIR", all_needed=True)
        for x in XS:
            drawn.append((f"accuracy-{x}", over_seeds(runs, x, "test_accuracy"), x, "test_accuracy"))
    else:
        for each in experiments_in(EXPERIMENTS):
            runs = read(each.runs, f"{each.name}.runs", all_needed=False)
            if runs:
                drawn.append((each.name, over_seeds(runs, each.x, each.y), each.x, each.y))
        if not drawn:
            raise UserError("experiments", EXPERIMENTS, "no experiment in it has a run to draw")
    figures = {out / f"{name}.png": figure(lines, x, y) for name, lines, x, y in drawn}
    for path, image in figures.items():
        write(image, path)
        print(path)


def main() -> int:
    """Exit code: 0, or 2 for a mistake in what was asked."""
    parser = _Parser(description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("runs", nargs="*", metavar="RUN_DIR", help="run directory, sweep directory or glob")
    parser.add_argument("--out", type=Path, default=Path("saves/plots"), metavar="DIR", help="%(default)s")
    parser.add_argument(
        "--classes", action="store_true", help="draw samples by client and class, classes.png"
    )
    try:
        arguments = parser.parse_args()
        (plot_classes if arguments.classes else plot)(arguments.runs, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
