"""Memory, threads and open files of a long run over gRPC: none may grow.

    python benchmarks/flat_memory.py
    python benchmarks/flat_memory.py --rounds 1000 --overrides algorithm=splitfed_v2 quant=int8

Looks at the server and at each client it started after the warm-up rounds and at the end, and at the same run
in one process, whose records of rounds grow too. Resident memory is the median over the rounds around each
moment. Exit code 1 if a process grew by more than 2 % in memory, or in threads.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from tests.transport.processes import Command

CLIENTS, AROUND = 4, 10
ALLOWED = 1.02
TINY = (
    f"num_clients={CLIENTS}",
    "dataset.max_train=200",
    "dataset.max_test=100",
    "progress=false",
    "auxiliary.align_epochs=2",
    "auxiliary.max_dataset_size=32",  # or memory grows until the rings of recent uploads are full
)


@dataclass(frozen=True)
class Use:
    """What a process has of the machine."""

    megabytes: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Use":
        """Now."""
        told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(int(told["VmRSS"].split()[0]) * 1024 / 1e6, int(told["Threads"]), files)


def rounds_of(directory: Path, server: Command) -> Iterator[int]:
    """Each round that is done, as soon as it is."""
    path, seen = directory / "metrics.csv", 0
    while server.exit_code is None:
        done = max(len(path.read_bytes().splitlines()) - 1, 0) if path.is_file() else 0
        if done > seen:
            seen = done
            yield done
        time.sleep(0.005)


def watched(asked: list[str], *, clients: int) -> dict[str, list[tuple[int, Use]]]:
    """What each process of a run uses, round by round.

    Raises:
        RuntimeError: the run failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    directory = folder / "run"
    server = Command([*asked, f"hydra.run.dir={directory}"], folder / "server.txt")
    uses: dict[str, list[tuple[int, Use]]] = {}
    for done in rounds_of(directory, server):
        with suppress(FileNotFoundError, ProcessLookupError):  # the run has just ended
            pids = {"server": server.pid}
            for client in range(clients):
                pids[f"client {client}"] = int((directory / "clients" / str(client) / "pid").read_text())
            for name, pid in pids.items():
                uses.setdefault(name, []).append((done, Use.of(pid)))
    if server.wait(60.0) != 0:
        raise RuntimeError(f"the run failed; see {folder}")
    return uses


def main() -> int:
    """Exit code 1 if anything grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--overrides", nargs="*", default=[])
    given = parser.parse_args()
    asked = [*TINY, f"rounds={given.rounds}", *given.overrides]
    uses = watched([*asked, "transport=grpc"], clients=CLIENTS)
    uses["one process"] = watched([*asked, "engine=sequential"], clients=0)["server"]
    table = Table("process", "MB after warm-up", "MB at the end", "ratio", "threads", "files")
    fine = True
    for name, found in uses.items():
        first = [use for done, use in found if given.warm_up <= done < given.warm_up + AROUND]
        last = [use for done, use in found if given.rounds - AROUND <= done]
        before, after = (median(use.megabytes for use in those) for those in (first, last))
        threads = [max(use.threads for use in those) for those in (first, last)]
        files = [max(use.files for use in those) for those in (first, last)]
        fine &= after <= ALLOWED * before and threads[1] <= threads[0]
        table.add_row(
            name,
            f"{before:.1f}",
            f"{after:.1f}",
            f"{after / before:.3f}",
            " to ".join(map(str, threads)),
            " to ".join(map(str, files)),
        )
    Console().print(table)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
