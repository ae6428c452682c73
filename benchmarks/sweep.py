"""Time of a sweep against that of its runs one after the other, and whether their results are equal.

    python benchmarks/sweep.py                                 # ten jobs on digits, three turns
    python benchmarks/sweep.py --jobs 2 --turns 1 rounds=2 dataset.max_train=200

Each turn times both, with all that a command costs. Every job's models must be those of its run alone, byte
for byte, and so must its metrics but for seconds; else the exit code is 1. It is 1 too where the median ratio
of the turns is above `--at-most`.
"""

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

MAIN = Path(__file__).parents[1] / "main.py"


def seconds(arguments: Sequence[str]) -> float:
    """That a command takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, str(MAIN), *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def computed(run: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """What a run leaves that is not about time."""
    models = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return models, [{k: v for k, v in row.items() if not k.startswith("seconds.")} for row in rows]


def main() -> int:
    """Exit code: 1 where results differ or the sweep is too slow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of every run")
    parser.add_argument("--jobs", type=int, default=10, help="seeds (default 10)")
    parser.add_argument("--turns", type=int, default=3, help="of both (default 3)")
    parser.add_argument("--at-most", type=float, help="the ratio that the sweep must reach")
    asked = parser.parse_args()
    ratios, same = [], True
    for turn in range(asked.turns):
        with TemporaryDirectory() as folder:
            seeds = range(asked.jobs)
            swept, alone = Path(folder, "swept"), Path(folder, "alone")
            listed = f"seed={','.join(map(str, seeds))}"
            together = seconds(["-m", *asked.overrides, listed, f"hydra.sweep.dir={swept}"])
            apart = sum(
                seconds([*asked.overrides, f"seed={seed}", f"hydra.run.dir={alone / str(seed)}"])
                for seed in seeds
            )
            equal = [computed(swept / str(seed)) == computed(alone / str(seed)) for seed in seeds]
        ratios.append(together / apart)
        same = same and all(equal)
        print(
            f"turn {turn}: sweep {together:.1f} s, one after the other {apart:.1f} s, "
            f"ratio {ratios[-1]:.2f}, {sum(equal)} of {asked.jobs} jobs as alone, to the bit",
            flush=True,
        )
    print(f"median ratio {median(ratios):.2f}")
    return int(not same or (asked.at_most is not None and median(ratios) > asked.at_most))


if __name__ == "__main__":
    sys.exit(main())
