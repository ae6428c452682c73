"""FedAvg in fedsplit, in other frameworks and in a plain loop, on one of four tasks.

    python benchmarks/peers/run.py --task cnn --python pfl_research=ENV/bin/python blaze_fl=ENV/bin/python ...

Each framework has an environment of its own, of `requirements-NAME.txt` here. All begin with one model,
and train on the same batches in the same order, in one thread; test losses at the end say whether they did.
Sides take turns, as whole processes; seconds of a round are the framework's loop from round to round, without
evaluation, the first rounds of each process left out. Images are noise in the shape of CIFAR-10 unless
`--images` names a folder; the `mlp` has the bundled digits.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from rich.console import Console
from rich.table import Table
from shared import PeerTask
from tasks import TASKS, experiment, peer_task

from benchmarks.experiments import one_round
from fedsplit.training.experiment import Experiment

HERE = Path(__file__).resolve().parent
PEERS = ("pfl_research", "blaze_fl", "flower")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="mlp", help="%(default)s")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="of peers' environments")
    parser.add_argument("--rounds", type=int, help="counted, of each process; by task")
    parser.add_argument("--turns", type=int, default=3, help="processes of each side; %(default)s")
    parser.add_argument("--cohort", type=int, help="clients of a round; by task")
    parser.add_argument("--learning-rate", type=float, help="of plain SGD; by task")
    parser.add_argument("--images", metavar="FOLDER", help="with train/ and test/, a folder a class in each")
    options = parser.parse_args()
    interpreters = dict(each.split("=", 1) for each in options.python)
    if unknown := interpreters.keys() - set(PEERS):
        parser.error(f"--python {unknown.pop()}: must be one of {', '.join(PEERS)}")
    task = TASKS[options.task].altered(cohort=options.cohort, learning_rate=options.learning_rate)
    rounds = task.warm_up + (options.rounds or task.rounds)
    taken: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        run = experiment(task, options.images)
        peer_task(options.task, run, rounds).save(Path(folder))
        shared = PeerTask.load(folder)
        for turn in range(options.turns):
            if turn:
                run = experiment(task, options.images)
            sides = {"fedsplit": measure(run, shared)}
            for name, python in {"plain_loop": sys.executable, **interpreters}.items():
                sides[name] = measure_peer(name, python, folder)
            for name, (seconds, loss) in sides.items():
                taken.setdefault(name, []).append(median(seconds[task.warm_up :]))
                losses[name] = loss
    columns = ("side", "seconds a round", "beside fedsplit", "test loss at the end")
    table = Table(*columns, title=f"{options.task}, {shared.cohort_size} of {shared.clients} clients a round")
    for name, seconds in taken.items():
        ratio = median(own / ours for own, ours in zip(seconds, taken["fedsplit"], strict=True))
        table.add_row(name, f"{median(seconds):.4f}", f"{ratio:.2f}", f"{losses[name]:.5f}")
    Console().print(table)


def measure(run: Experiment, task: PeerTask) -> tuple[list[float], float]:
    """Seconds of each round of ours, and the test loss at the end."""
    times = [time.perf_counter()]
    for t in range(task.rounds):
        one_round(run, t)
        times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    return seconds, task.test_loss(run.algorithm.full_weights())


def measure_peer(name: str, python: str, folder: str) -> tuple[list[float], float]:
    """The same of a peer, in a process of its own environment."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [python, str(HERE / f"{name}.py"), folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return told["seconds"], told["loss"]


if __name__ == "__main__":
    main()
