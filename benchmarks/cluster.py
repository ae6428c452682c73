"""What workers of a cluster cost and save: rounds with cluster=none and with cluster=ray, in turn.

    python benchmarks/cluster.py                      # all rows, on a machine that does nothing else
    python benchmarks/cluster.py --only fed_avg --turns 3
    python benchmarks/cluster.py --memory             # of an idle worker, and over 200 rounds

A row prints, as medians over turns, seconds of a round, processor seconds of driver and of the busiest
worker, and ratios to the round in one process, each a median of the ratios of a turn's pair: of all
processor time, of seconds, and of the critical path, which is processor time of driver plus busiest worker
and means something on a busy machine too. Images are of noise; both sides end with the same weights, which
is checked.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.network import experiment, images
from fedsplit.training.experiment import Experiment
from tests.cluster.ray_processes import marked, processes

_CLIENTS = 10
_RESNET = ("model=resnet18", "dataset.max_train=960", "batch_size=32", "engine=sequential")
_CONV = (
    "algorithm=fed_avg",
    "model=simple_conv",
    "dataset.max_train=2000",
    "batch_size=32",
    "engine=sequential",
)
ROWS: dict[str, tuple[int, tuple[str, ...]]] = {
    "one-worker": (1, _CONV),
    "fed_avg": (2, _CONV),
    "splitfed_v1": (2, ("algorithm=splitfed_v1", *_RESNET)),
    "fsl_sage": (2, ("algorithm=fsl_sage", "algorithm.align_interval=1", *_RESNET)),
}
"""Workers, and settings of both sides."""
_TICK = 1 / 100


@dataclass
class Turn:
    """A round on both sides: seconds, and processor seconds of the driver and of each worker."""

    local_s: float
    local_cpu: float
    cluster_s: float
    driver_cpu: float
    workers_cpu: list[float]

    @property
    def critical(self) -> float:
        """Processor seconds that cannot overlap: the driver's, and those of the busiest worker."""
        return self.driver_cpu + max(self.workers_cpu)


def worker_pids(mark: str) -> list[int]:
    """Processes of workers that were started here."""
    return sorted(pid for pid, words in processes(mark).items() if words.startswith("ray::_Actor"))


def processor_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def private_mb(pid: int) -> float:
    """MB of memory of a process that is not shared with others, as pixels in shared memory are."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kept = (line.split() for line in lines if line.startswith(("Private_", "Anonymous")))
    values = {words[0].rstrip(":"): int(words[1]) for words in kept}
    return (values["Private_Clean"] + values["Private_Dirty"]) / 1e3


def resident_mb(pid: int | str = "self") -> float:
    """Resident MB of a process, without memory that is shared."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * 4096 / 1e6


def round_of(run: Experiment) -> tuple[float, float]:
    """Seconds and processor seconds of this process that the next round takes."""
    began, cpu = time.perf_counter(), time.process_time()
    run.records.append(run.run_round(len(run.records)))
    return time.perf_counter() - began, time.process_time() - cpu


def measured(workers: int, settings: tuple[str, ...], turns: int, folder: Path) -> list[Turn]:
    """Rounds in turn; the first of both sides is not counted."""
    common = ("dataset=image_folder", f"dataset.root={folder}", f"num_clients={_CLIENTS}", "progress=false")
    common += ("eval_interval=1000", *settings)
    local = experiment(*common)
    with marked() as mark:
        cluster = experiment(*common, "cluster=ray", f"cluster.workers={workers}")
        found = []
        with local.transport.open(folder), cluster.transport.open(folder):
            pids = worker_pids(mark)
            assert len(pids) == workers, pids
            for turn in range(turns + 1):
                local_s, local_cpu = round_of(local)
                before = [processor_seconds(pid) for pid in pids]
                cluster_s, driver_cpu = round_of(cluster)
                used = [processor_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
                if turn:
                    found.append(Turn(local_s, local_cpu, cluster_s, driver_cpu, used))
            ours, theirs = cluster.algorithm.full_weights(), local.algorithm.full_weights()
            assert all(torch.equal(ours[name], each) for name, each in theirs.items()), "the same weights"
    return found


def memory(rounds: int, folder: Path) -> None:
    """Print memory of an idle worker, and of driver and workers along a run."""
    settings = (
        "algorithm=fed_avg",
        "dataset=image_folder",
        f"dataset.root={folder}",
        "dataset.max_train=400",
    )
    settings += (
        "model=digits_cnn",
        "batch_size=40",
        f"num_clients={_CLIENTS}",
        "progress=false",
        "eval_interval=1000",
    )
    with marked() as mark:
        run = experiment(*settings, "engine=sequential", "cluster=ray", "cluster.workers=2")
        with run.transport.open(folder):
            pids = worker_pids(mark)
            idle = [private_mb(pid) for pid in pids]
            print("idle workers, private MB:", ", ".join(f"{mb:.0f}" for mb in idle))
            for t in range(rounds):
                run.records.append(run.run_round(t))
                if t + 1 in (20, rounds // 2, rounds):
                    told = ", ".join(f"{resident_mb(pid):.1f}" for pid in ("self", *pids))
                    print(f"after {t + 1} rounds, MB of driver and workers: {told}", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rounds", type=int, default=200, help="of --memory")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        images(folder, 2000)
        if arguments.memory:
            memory(arguments.rounds, folder)
            return
        columns = ("row", "workers", "local s", "cluster s", "local CPU s", "driver", "busiest worker")
        table = Table(*columns, "CPU in all", "seconds", "critical path")
        raw = {}
        for name in arguments.only:
            workers, settings = ROWS[name]
            turns = measured(workers, settings, arguments.turns, folder)
            raw[name] = [asdict(turn) for turn in turns]
            numbers = (
                median(turn.local_s for turn in turns),
                median(turn.cluster_s for turn in turns),
                median(turn.local_cpu for turn in turns),
                median(turn.driver_cpu for turn in turns),
                median(max(turn.workers_cpu) for turn in turns),
            )
            ratios = (
                median((turn.driver_cpu + sum(turn.workers_cpu)) / turn.local_cpu for turn in turns),
                median(turn.cluster_s / turn.local_s for turn in turns),
                median(turn.critical / turn.local_cpu for turn in turns),
            )
            told = [f"{each:.2f}" for each in numbers] + [f"{each:.2f}x" for each in ratios]
            table.add_row(name, str(workers), *told)
            print(name, *told, flush=True)
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
