"""Makes the runs that the digits experiments of `exp_configs.yaml` need, and draws them for docs/gallery.md.

python docs/gallery.py                          # all of them; runs that are in saves/gallery already are kept
python docs/gallery.py --only digits-roc        # one
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from fedsplit.reports.drawing import StoredRuns, draw, image_files, write
from fedsplit.reports.experiments import FigureRequest, experiments_in
from fedsplit.reports.notes import Notes
from fedsplit.reports.selection import missing

ROOT = Path(__file__).resolve().parents[1]
PAGE, IMAGES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
CONFIGS = ROOT / "exp_configs.yaml"
INTRODUCTION = """\
# Gallery

Every type of figure, of runs on the digits images, with what asks for it in
[`exp_configs.yaml`](../exp_configs.yaml). `python docs/gallery.py` makes the runs (some minutes) and draws
this page. The keys are explained in [plots.md](plots.md).
"""
ATTACKED = """\
## What attackers reconstruct

CIFAR-10, SplitFed v1, `simple_conv`: originals, the mean image, and what a decoder makes of smashed data at
an early cut and at one behind all convolutions, under four codecs; then accuracy against the SSIM of the best
reconstruction, of five codecs. [How, and what it says](privacy.md#measured).

![Images reconstructed behind pool1](gallery/cifar10-reconstructions-pool1.png)

![Images reconstructed behind flatten](gallery/cifar10-reconstructions-flatten.png)

![Test accuracy against the SSIM of reconstructions](gallery/cifar10-leakage.png)

```sh
python main.py task=attack run=saves/splitfed_v1/... task.mode=eval 'task.cuts=[pool1,flatten]' \\
    'task.codecs=[none,int8,int2,sign]' 'task.attackers=[decoder]'
```
"""


def main() -> None:
    """Make runs, draw, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of experiments")
    parser.add_argument("--saves", type=Path, default=ROOT / "saves" / "gallery", help="of runs; %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; %(default)s")
    options = parser.parse_args()
    options.saves.mkdir(parents=True, exist_ok=True)
    every = [each for each in experiments_in(CONFIGS) if each.name.startswith("digits-")]
    for each in every:
        if options.only is None or each.name in options.only:
            here = replace(each, runs=(str(options.saves),))
            make(here, options.saves, options.jobs)
            notes = Notes()
            runs = StoredRuns(notes).select_runs(here)
            for text in notes.texts:
                print(f"note: {text}", file=sys.stderr)
            for path in write(image_files(draw(here, runs, ["png"])), IMAGES) if runs else ():
                print(path)
    PAGE.write_text(page(every), encoding="utf-8")


def make(experiment: FigureRequest, saves: Path, jobs: int) -> None:
    """Run what the experiment expects and is not there."""
    found = StoredRuns(Notes()).select_runs(replace(experiment, expects={}))
    for command in missing(found, experiment.where, experiment.expects):
        print(command, flush=True)
        overrides = [each for each in shlex.split(command)[2:] if each != "-m"]
        sweep = [f"hydra.sweep.dir={saves / experiment.name}-{len(list(saves.iterdir()))}"]
        sweep += [f"hydra.launcher.n_jobs={jobs}", "progress=false"]
        asked = [sys.executable, str(ROOT / "main.py"), "-m", *overrides, *sweep]
        subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)


def page(experiments: Sequence[FigureRequest]) -> str:
    """The page: each figure there is, with the lines that ask for it."""
    entries = yaml.safe_load(CONFIGS.read_text("utf-8"))
    parts = [INTRODUCTION]
    for each in experiments:
        if not (IMAGES / f"{each.name}.png").exists():
            continue
        asked = yaml.safe_dump({each.name: entries[each.name]}, sort_keys=False, default_flow_style=None)
        parts.append(f"## {each.title}\n\n![{each.title}](gallery/{each.name}.png)\n\n```yaml\n{asked}```\n")
    return "\n".join([*parts, ATTACKED])


if __name__ == "__main__":
    main()
