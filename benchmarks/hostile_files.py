"""Tries long what `tests/test_hostile_files.py` tries briefly: files of runs and deployed models run no code.

    python benchmarks/hostile_files.py --cases 2000

Prints what became of the cases; the exit code is 1 where anything was executed, imported, unpickled, written
elsewhere or looked up in the environment, ended in a traceback, or took more memory than it may.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table

from tests.hostile_files import Files

MOST_MEMORY_GB = 1.5


def main() -> int:
    """Try, and print what became of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2_000, help="run directories and deployed models")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder) / "files", options.seed)
        for _ in range(options.cases):
            files.case()
    tally, hits = files.tally, files.canary.hits
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    for told in (
        *tally.tracebacks[:40],
        *tally.long_errors[:10],
        *(f"{n}x {hit}" for hit, n in hits.items()),
    ):
        print(told)
    table = Table("what", "number", title="hostile files", title_justify="left")
    for what, number in (
        ("cases", tally.cases),
        ("readings refused", tally.refused),
        ("readings accepted", tally.accepted),
        ("tracebacks", len(tally.tracebacks)),
        ("errors of several lines", len(tally.long_errors)),
        ("canary hits", sum(hits.values())),
        ("peak memory (GB)", f"{memory:.2f}"),
        ("seconds", f"{time.perf_counter() - start:.0f}"),
    ):
        table.add_row(what, str(number))
    Console().print(table)
    return int(bool(tally.tracebacks or tally.long_errors or hits) or memory > MOST_MEMORY_GB)


if __name__ == "__main__":
    sys.exit(main())
