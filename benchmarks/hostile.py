"""Tries long what `tests/transport/test_hostile.py` tries briefly: no end is harmed by what the other sends.

    python benchmarks/hostile.py --cases 20000

Each property gets its part of the cases, for each of some presets of codecs. A failure is shown with the
smallest case that was found, and the exit code is 1. `--help` lists the options.
"""

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir
from rich.console import Console
from rich.table import Table

from tests.transport.invariants import INVARIANTS, QUANTS, World


def main() -> int:
    """Try, and print what was tried; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="in all")
    parser.add_argument("--quant", nargs="+", choices=QUANTS, default=list(QUANTS))
    parser.add_argument("--only", nargs="+", choices=INVARIANTS, default=list(INVARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shares = len(options.quant) * sum(INVARIANTS[name][2] for name in options.only)
    table = Table("quant", "property", "cases", "s", "result", title="hostile bytes", title_justify="left")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(Path(folder) / "hypothesis")
        for quant in options.quant:
            world = World(quant, Path(folder) / quant)
            for name in options.only:
                cases = -(-options.cases * INVARIANTS[name][2] // shares)
                start = time.perf_counter()
                tried, holds = _tried(world, name, cases, options.seed)
                failed += not holds
                took = f"{time.perf_counter() - start:.0f}"
                table.add_row(quant, name, str(tried), took, "holds" if holds else "FAILED")
                print(quant, name, tried, f"{took} s", "holds" if holds else "FAILED", flush=True)
    Console().print(table)
    return int(failed > 0)


def _tried(world: World, name: str, cases: int, number: int) -> tuple[int, bool]:
    """How many cases were tried, and whether the property held in all."""
    holds, drawn, _ = INVARIANTS[name]
    tried = 0

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn(world))
    def check(case: tuple[object, ...]) -> None:
        nonlocal tried
        tried += 1
        holds(world, *case)

    try:
        check()
    except Exception:
        traceback.print_exc()
        return tried, False
    return tried, True


if __name__ == "__main__":
    sys.exit(main())
