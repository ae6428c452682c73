"""What the network costs: rounds of one experiment with transport=local and with transport=grpc, in turn.

    taskset -c 0 python benchmarks/network.py     # processor time, everything on one core
    python benchmarks/network.py                  # seconds, with as many cores as there are

Prints, for each algorithm, seconds and processor seconds of a round (medians), over all processes, and
their ratios. Images are of noise; both sides train on the same ones and end with the same weights: checked.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from fedsplit.building.process import prepare_process
from fedsplit.config.compose import compose_config, composing, run_config
from fedsplit.training.experiment import Experiment


def images(folder: Path, number: int) -> None:
    """Write images of noise, as many in each of ten classes."""
    draw = np.random.default_rng(0)
    for split, count in (("train", number), ("test", 10)):
        for index in range(count):
            path = folder / split / str(index % 10) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(path)


def experiment(*overrides: str) -> Experiment:
    """An experiment as the command line builds it."""
    with composing():
        config = run_config(compose_config(overrides))
    prepare_process(config)
    return Experiment(config)


def processor_seconds(pids: list[int]) -> float:
    """Of this process and others, so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    times = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") + times.user + times.system


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithms", nargs="+", default=["fsl_sage"])
    parser.add_argument("--model", default="simple_conv")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--samples", type=int, default=512, help="of each client")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quant", default="none")
    given = parser.parse_args()
    table = Table(
        "algorithm", *(f"{of} {unit}" for unit in ("s", "CPU s") for of in ("local", "grpc", "ratio"))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images(folder / "images", given.clients * given.samples)
        for algorithm in given.algorithms:
            measured = measure(folder, algorithm, given)
            table.add_row(algorithm, *measured)
    cores = len(os.sched_getaffinity(0))
    console = Console()
    console.print(
        f"{given.model}, {given.clients} clients, {given.samples} samples each, batch {given.batch}, quant="
        f"{given.quant}, {cores} core(s), torch {torch.__version__}; medians of {given.rounds} rounds each",
        soft_wrap=True,
    )
    console.print(table)


def measure(folder: Path, algorithm: str, given: argparse.Namespace) -> list[str]:
    """A row of the table."""
    overrides = [
        f"algorithm={algorithm}",
        f"model={given.model}",
        "dataset=image_folder",
        f"dataset.root={folder / 'images'}",
        f"num_clients={given.clients}",
        f"batch_size={given.batch}",
        f"quant={given.quant}",
        "engine=sequential",
        "eval_interval=1000000",
        "progress=false",
        "auxiliary.align_epochs=10",
    ]
    runs = {name: experiment(*overrides, f"transport={name}") for name in ("local", "grpc")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    place = folder / algorithm
    place.mkdir()
    with runs["grpc"].transport.open(place):
        pids = [int((place / "clients" / str(c) / "pid").read_text()) for c in range(given.clients)]
        for t in range(given.rounds + 1):
            for name, run in runs.items():
                before, start = processor_seconds(pids), time.perf_counter()
                run.run_round(t)
                if t:  # the first one is warming up, and an alignment
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(processor_seconds(pids) - before)
        full = [run.algorithm.full_weights() for run in runs.values()]
        same = all(torch.equal(full[0][key], full[1][key]) for key in full[0])
    if not same:
        raise SystemExit(f"{algorithm}: local and grpc ended with different weights")
    row = []
    for measured in (seconds, processor):
        local, grpc = median(measured["local"]), median(measured["grpc"])
        row += [f"{local:.3f}", f"{grpc:.3f}", f"{grpc / local:.3f}"]
    return row


if __name__ == "__main__":
    main()
