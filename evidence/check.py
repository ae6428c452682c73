"""Compares numbers in the documentation with the runs that they were measured by.

python evidence/check.py                      # a line for each place that says something else than its runs
python evidence/check.py --write              # brings these places to what the runs say
python evidence/check.py --add SWEEP FOLDER   # takes over the runs of a sweep, of seeds that are finished
python evidence/check.py --draw               # draws the figures of docs/gallery/ that are made of these runs

Between `<!-- attacks: FOLDER -->` and `<!-- end of evidence -->` stands the table of the attacks in
`evidence/FOLDER/attack.csv`, which a sweep of `task=train_and_attack` gathered.
Between `<!-- evidence: NAME -->` and `<!-- end of evidence -->` stands the table of the experiment NAME of
`evidence/exp_configs.yaml`. A number before `<!-- evidence: NAME/ROW/COLUMN -->` is a mean in that table: ROW
is the algorithm, with its setting after a comma if it has one, COLUMN a key as in `NAME.csv`.

A page shows the figure of the experiment NAME as `gallery/NAME.png`.
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.bounded import csv_table
from fedsplit.reports.drawing import StoredRuns, draw, image_files, tabulate, write
from fedsplit.reports.experiments import FigureRequest, experiments_in
from fedsplit.reports.figures.style import encode_figure, house_style
from fedsplit.reports.notes import Notes
from fedsplit.reports.runs import METRICS, RESULTS, Run, read_run
from fedsplit.reports.tables.files import as_markdown
from fedsplit.reports.tables.table import Table
from fedsplit.tasks.attack.study_figure import study_figure

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE, IMAGES = "evidence", "docs/gallery"
PAGES = ("README.md", "BENCHMARKS.md", "docs/*.md", "evidence/README.md")
KEPT = ("config.yaml", METRICS, RESULTS)
"""Files of a run that are evidence."""
_TABLE = re.compile(r"<!-- evidence: ([\w-]+) -->\n\n(.*?)\n\n<!-- end of evidence -->", re.DOTALL)
_ATTACKS = re.compile(r"<!-- attacks: ([\w-]+) -->\n\n(.*?)\n\n<!-- end of evidence -->", re.DOTALL)
_NUMBER = re.compile(r"(\S+)( <!-- evidence: ([\w-]+)/([^/\n]+)/([\w.]+) -->)")


def experiments(root: Path) -> list[tuple[FigureRequest, list[Run]]]:
    """The experiments of `evidence/exp_configs.yaml` with their runs, which are beside it.

    Raises:
        UserError: an experiment has no run, or a run cannot be taken.
    """
    folder, notes = root / EVIDENCE, Notes()
    stored = StoredRuns(notes)
    listed = experiments_in(folder / "exp_configs.yaml")
    here = [replace(each, runs=tuple(str(folder / place) for place in each.runs)) for each in listed]
    found = [(each, stored.select_runs(each)) for each in here]
    if notes.texts:
        raise UserError("evidence", folder, notes.texts[0])
    return found


def tables(root: Path) -> dict[str, Table]:
    """The tables of all experiments of `evidence/exp_configs.yaml` that have one, by name."""
    return {each.name: table for each, runs in experiments(root) for table in tabulate(each, runs)}


def shown_images(root: Path) -> set[str]:
    """Names of the images of `docs/gallery/` that a page shows."""
    pages = (path.read_text("utf-8") for pattern in PAGES for path in root.glob(pattern))
    return {name for page in pages for name in re.findall(r"\]\((?:docs/)?gallery/([^)]+)\)", page)}


def figures(root: Path) -> dict[str, bytes]:
    """The figures of experiments and attacks that a page shows, drawn anew, by the names of their files."""
    shown = shown_images(root)
    asked = [each for each in experiments(root) if f"{each[0].name}.png" in shown]
    found = {name: image for each, runs in asked for name, image in _image(each, runs).items()}
    for path in sorted((root / EVIDENCE).glob("*/attack.csv")):
        if (name := f"{path.parent.name}.png") in shown:
            with house_style():
                found[name] = encode_figure(study_figure([row for _, row in csv_table(path)[1]]), "png")
    return found


def _image(experiment: FigureRequest, runs: Sequence[Run]) -> dict[str, bytes]:
    drawn = draw(experiment, runs, ["png"])
    if drawn.left_out:
        raise UserError(experiment.name, ", ".join(drawn.left_out), "must have room in the figure")
    return image_files(drawn)


def attacks(path: Path) -> str:
    """Table of attacks in Markdown: a line for each run, cut and way, with what each attacker reconstructs.

    Args:
        path: of the `attack.csv` of a sweep.

    Raises:
        UserError: it is damaged, or not there.
    """
    groups: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    try:
        for _, row in csv_table(path)[1]:
            way = tuple(row[name] for name in ("job", "cut", "defence", "codec"))
            groups.setdefault(way, {})[row["attacker"]] = row
        attackers = list(dict.fromkeys(name for rows in groups.values() for name in rows))
        head = ["cut", "defence", "sent as", "bytes", "accuracy (%)", *attackers, "dCor²"]
        lines = [head, ["---"] * 3 + ["--:"] * (len(head) - 3)]
        for (_, cut, defence, codec), rows in groups.items():
            one = next(iter(rows.values()))
            numbers = [f"{float(one['bytes_per_sample']):,.0f}", f"{100 * float(one['test_accuracy']):.1f}"]
            reached = [_reached(rows[name]) if name in rows else "" for name in attackers]
            correlation = f"{float(one['distance_correlation']):.2f}"
            lines.append([f"`{cut}`", f"`{defence}`", f"`{codec}`", *numbers, *reached, correlation])
    except (OSError, ValueError, KeyError) as error:
        raise UserError("attacks", path, f"cannot be read: {error}") from error
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reached(row: Mapping[str, str]) -> str:
    psnr, ssim, found = (float(row[name]) for name in ("psnr", "ssim", "reidentified"))
    return f"{psnr:.1f} / {ssim:.2f} / {found:.2f}"


def corrected(text: str, found: Mapping[str, Table], folder: Path) -> str:
    """The text of a page with what the tables say in all places that name one.

    Raises:
        UserError: a place names a table, row or column that is not there.
    """

    def table(place: re.Match[str]) -> str:
        inside = as_markdown(_named(found, place[1])).split("\n\n")[1]
        return f"<!-- evidence: {place[1]} -->\n\n{inside}\n\n<!-- end of evidence -->"

    def of_attacks(place: re.Match[str]) -> str:
        inside = attacks(folder / place[1] / "attack.csv")
        return f"<!-- attacks: {place[1]} -->\n\n{inside}\n\n<!-- end of evidence -->"

    def number(place: re.Match[str]) -> str:
        return mean(_named(found, place[3]), place[4], place[5]) + place[2]

    return _NUMBER.sub(number, _ATTACKS.sub(of_attacks, _TABLE.sub(table, text)))


def mean(table: Table, row: str, column: str) -> str:
    """One mean of a table, as it is shown; `UserError` where there is no such row or column."""
    rows = [", ".join(filter(None, (each.algorithm, each.setting))) for each in table.rows]
    columns = [each.key for each in table.columns]
    for name, known in ((row, rows), (column, columns)):
        if name not in known:
            raise UserError(table.name, name, f"must be among {', '.join(known)}")
    _, cells = table.lines()[rows.index(row)]
    return cells[columns.index(column)].mean


def _named(found: Mapping[str, Table], name: str) -> Table:
    if name not in found:
        raise UserError("evidence", name, f"must be an experiment with runs: {', '.join(found)}")
    return found[name]


def compared(root: Path, *, write: bool) -> list[str]:
    """A line for each line of a page that says something else than its runs; with `write` it is put right.

    Raises:
        UserError: what a page names is not there.
    """
    found, told = tables(root), []
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        before = path.read_text("utf-8")
        after = corrected(before, found, root / EVIDENCE)
        lines = zip(before.splitlines(), after.splitlines(), strict=False)
        changed = [place for place, (old, new) in enumerate(lines, 1) if old != new]
        if after != before:
            place = changed[0] if changed else before.count("\n")
            told.append(f"{path.relative_to(root)}:{place}: its runs say otherwise")
        if write and after != before:
            path.write_text(after, "utf-8")
    return told


def add(sweep: Path, folder: Path, images: str) -> int:
    """Take over the evidence of a sweep's runs, of each seed that then has as many runs as any other.

    Args:
        sweep: directory with a directory for each job.
        folder: where they go, beside the runs that it has, under the next numbers; a run that it has
            already is replaced.
        images: what stands for a folder of images, whose place on another machine says nothing.

    Returns:
        How many runs there were.
    """
    places = {path.read_text("utf-8"): path.parent for path in sorted(folder.glob("*/config.yaml"))}
    seed_of = {text: read_run(place).seed for text, place in places.items()}
    finished: dict[str, Path] = {}
    for path in sorted(sweep.glob(f"*/{RESULTS}"), key=lambda path: _number(path.parent)):
        config = (path.parent / "config.yaml").read_text("utf-8")
        config = re.sub(r"(?m)^(  root: )(?!null).*$", rf"\g<1>{images}", config)
        finished[config], seed_of[config] = path.parent, read_run(path.parent).seed
    runs_of = Counter(seed_of.values())
    whole = {text: run for text, run in finished.items() if runs_of[seed_of[text]] == max(runs_of.values())}
    following = count(max(map(_number, places.values()), default=-1) + 1)
    for config, run in whole.items():
        own = places.get(config) or folder / str(next(following))
        own.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copy(run / name, own / name)
        (own / "config.yaml").write_text(config, "utf-8")
    return len(whole)


def _number(run: Path) -> int:
    """Job number of a run's directory; -1 of one that has another name."""
    return int(run.name) if run.name.isdecimal() else -1


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for.

    Returns:
        The exit code: 1 where a page says something else than its runs, 2 for a mistake.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--write", action="store_true", help="bring pages to what their runs say")
    parser.add_argument("--add", nargs=2, type=Path, metavar=("SWEEP", "FOLDER"), help="take over runs")
    parser.add_argument("--draw", action="store_true", help="draw the figures that pages show")
    parser.add_argument("--images", default="datas/cifar10_jpeg", help="named in place of dataset.root")
    options = parser.parse_args(arguments)
    if options.add:
        sweep, folder = options.add
        print(f"{add(sweep, folder, options.images)} runs")
        return 0
    try:
        if options.draw:
            print("\n".join(map(str, write(figures(ROOT), ROOT / IMAGES))))
            return 0
        told = compared(ROOT, write=options.write)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(told) or "all pages say what their runs say")
    return 1 if told and not options.write else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
