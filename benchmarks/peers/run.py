"""FedAvg of 100 clients with an MLP on digits: fedsplit beside other frameworks, in one run.

    python benchmarks/peers/run.py --python pfl_research=ENV/bin/python blaze_fl=ENV/bin/python ...

Each framework has an environment of its own, of `requirements-NAME.txt` here. All begin with one model,
and train on the same batches in the same order, in one thread; test losses at the end say whether they did.
Sides take turns, as whole processes; seconds of a round are the framework's loop from round to round, without
evaluation, the first rounds of each process left out.
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

from benchmarks.experiments import MLP, build, one_round
from benchmarks.peers.shared import PeerTask
from fedsplit.training.experiment import Experiment

HERE = Path(__file__).resolve().parent
PEERS = ("pfl_research", "blaze_fl", "flower")
_WARM_UP = 2
"""Rounds of each process that are not counted."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="of peers' environments")
    parser.add_argument("--rounds", type=int, default=10, help="counted, of each process; %(default)s")
    parser.add_argument("--turns", type=int, default=3, help="processes of each side; %(default)s")
    options = parser.parse_args()
    interpreters = dict(each.split("=", 1) for each in options.python)
    if unknown := interpreters.keys() - set(PEERS):
        parser.error(f"--python {unknown.pop()}: must be one of {', '.join(PEERS)}")
    taken: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        file = Path(folder, "task.npz")
        for turn in range(options.turns):
            run = small_clients()
            if turn == 0:
                task_of(run, options.rounds + _WARM_UP).save(file)
            sides = {"fedsplit": measure(run, options.rounds + _WARM_UP)}
            sides |= {name: measure_peer(name, python, file) for name, python in interpreters.items()}
            for name, (seconds, loss) in sides.items():
                taken.setdefault(name, []).append(median(seconds[_WARM_UP:]))
                losses[name] = loss
    table = Table("framework", "seconds a round", "beside fedsplit", "test loss at the end")
    for name, seconds in taken.items():
        ratio = median(own / ours for own, ours in zip(seconds, taken["fedsplit"], strict=True))
        table.add_row(name, f"{median(seconds):.4f}", f"{ratio:.1f}", f"{losses[name]:.5f}")
    Console().print(table)


def small_clients() -> Experiment:
    """FedAvg of 100 clients with 14 or 15 digits images each, batch 8, SGD, an MLP."""
    return build("algorithm=fed_avg", "num_clients=100", "batch_size=8", "optimizer=sgd", *MLP)


def task_of(run: Experiment, rounds: int) -> PeerTask:
    """The same as a file for others: weights, samples, and the order of each client's in each round."""
    data, training = run.parts.data.dataset, run.parts.config.training
    batches = [run.parts.batches(client) for client in range(len(run.parts.data.shards))]
    orders = [[own.indices[next(iter(own.permutations(t)))] for own in batches] for t in range(rounds)]
    everything = slice(None)
    return PeerTask(
        x=data.train.inputs_at(everything).contiguous(),
        y=data.train.labels_at(everything),
        orders=orders,
        test_x=data.test.inputs_at(everything).contiguous(),
        test_y=data.test.labels_at(everything),
        weights=[each.clone() for each in run.algorithm.full_weights().values()],
        batch_size=training.batch_size,
        learning_rate=float(str(run.parts.config.optimizer.arguments["lr"])),
    )


def measure(run: Experiment, rounds: int) -> tuple[list[float], float]:
    """Seconds of each round of ours, and the test loss at the end."""
    times = [time.perf_counter()]
    for t in range(rounds):
        one_round(run, t)
        times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    return seconds, run.evaluate(run.algorithm.full_weights()).loss


def measure_peer(name: str, python: str, file: Path) -> tuple[list[float], float]:
    """The same of a peer, in a process of its own environment."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [python, str(HERE / f"{name}.py"), str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return told["seconds"], told["loss"]


if __name__ == "__main__":
    main()
