"""What a round costs beside a plain PyTorch loop that does the same passes.

    python benchmarks/round_overhead.py

For each algorithm, rounds of the package and of `benchmarks/plain_loops.py` alternate in one process and
one thread, on the same initial weights and the same batches, which the plain loop has preloaded. A row
counts only if both end at the same test loss. Alignment rounds are timed apart. `--help` lists the options.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from hydra import initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.plain_loops import PlainLoop
from fedsplit.experiment import Experiment
from main import CONFIGS, composed, plain

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")


def seconds(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def build(algorithm: str, options: argparse.Namespace, *further: str) -> Experiment:
    """An experiment on images of noise, with further overrides."""
    overrides = [
        f"algorithm={algorithm}",
        f"model={options.model}",
        f"num_clients={options.clients}",
        f"batch_size={options.batch}",
        f"auxiliary.align_epochs={options.align_epochs}",
        *further,
    ]
    if algorithm == "fsl_sage":
        overrides.append(f"algorithm.align_interval={options.align_interval}")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = plain(composed(overrides))
    config["dataset"] = {
        "_target_": "benchmarks.synthetic.SyntheticImages",
        "train": options.clients * options.samples,
        "test": 200,
        "flip": True,
        "crop_padding": 4,
    }
    return Experiment(config)


def measure(algorithm: str, options: argparse.Namespace, table: Table) -> None:
    """Add the rows of one algorithm."""
    ours = build(algorithm, options)
    theirs = PlainLoop(build(algorithm, options))
    if algorithm == "cse_fsl":  # there the clients train the auxiliary models, with their own optimizer
        theirs.auxiliary_steppers = [theirs.optimizer(module) for module in theirs.auxiliaries]
    clients = range(options.clients)
    extra = {"l": options.align_interval} if algorithm == "fsl_sage" else {}
    timings: dict[str, list[tuple[float, float, float]]] = {}
    for t in range(options.rounds + 1):
        theirs.preload(t)
        plainly = seconds(lambda t=t: getattr(theirs, algorithm)(t, **extra))
        packaged = seconds(lambda t=t: ours.algorithm.run_round(t, ours.transport.cohort(t, clients)))
        loading = seconds(lambda t=t: [list(ours.parts.batches(i).round(t)) for i in clients])
        aligns = algorithm == "fsl_sage" and t % options.align_interval == 0
        if t > 0:  # the first round warms up
            name = f"{algorithm}, with alignment" if aligns else algorithm
            timings.setdefault(name, []).append((plainly, packaged, loading))
    losses = [ours.evaluate(weights)[1] for weights in (ours.algorithm.full_weights(), theirs.full_weights())]
    same = abs(losses[0] - losses[1]) <= 1e-3 * abs(losses[1])
    for name, rows in timings.items():
        table.add_row(
            name,
            str(len(rows)),
            f"{median(row[0] for row in rows):.3f}",
            f"{median(row[1] for row in rows):.3f}",
            f"{median(row[1] / row[0] for row in rows):.3f}",
            f"{median(row[2] / row[1] for row in rows):.1%}",
            f"{losses[0]:.5f} {'=' if same else '!='} {losses[1]:.5f}",
        )


def measure_alignment(options: argparse.Namespace, table: Table) -> None:
    """Add the row of one client's alignment over a full ring, apart from everything else."""
    ours = build("fsl_sage", options)
    theirs = PlainLoop(build("fsl_sage", options))
    draw = torch.Generator().manual_seed(0)
    z = torch.rand((1000, *ours.parts.models.smashed_shape), generator=draw)
    y = torch.randint(10, (1000,), generator=draw)
    alignment, server = ours.algorithm.alignment, ours.algorithm.server  # type: ignore[attr-defined]
    initially = ours.algorithm.auxiliary  # type: ignore[attr-defined]
    alignment.store(0, z, y)
    theirs.rings[0] = z, y
    rows = []
    for t in range(options.alignments + 1):
        plainly = seconds(lambda t=t: theirs.align(t, 0))
        rows.append((plainly, seconds(lambda t=t: alignment.align(0, t, server, initially=initially))))
    rows.pop(0)
    weights = alignment.auxiliary_weights()[0]
    difference = max(
        float((weights[name] - p.detach()).norm() / p.detach().norm())
        for name, p in theirs.auxiliaries[0].named_parameters()
    )
    table.add_row(
        "one alignment, 1,000 samples",
        str(len(rows)),
        f"{median(row[0] for row in rows):.3f}",
        f"{median(row[1] for row in rows):.3f}",
        f"{median(row[1] / row[0] for row in rows):.3f}",
        "",
        f"weights differ by {difference:.0e}",
    )


def main() -> None:
    """Print a table for one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="simple_conv", choices=["simple_conv", "resnet18"])
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--samples", type=int, default=160, help="images of a client")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7, help="rounds counted, after one that warms up")
    parser.add_argument("--align-interval", type=int, default=100, help="1 aligns in every round")
    parser.add_argument("--align-epochs", type=int, default=10)
    parser.add_argument("--alignments", type=int, default=5)
    parser.add_argument("--only", choices=[*ALGORITHMS, "alignment"], help="one row")
    options = parser.parse_args()
    table = Table("round of", "n", "plain (s)", "fedsplit (s)", "ratio", "data loading", "test loss")
    for algorithm in ALGORITHMS:
        if options.only in (None, algorithm):
            measure(algorithm, options, table)
    if options.only in (None, "alignment"):
        measure_alignment(options, table)
    shape = f"{options.clients} clients, {options.samples} images each, batch {options.batch}"
    Console(width=120).print(
        f"{options.model}, {shape}, one thread, torch {torch.__version__}; medians", table
    )


if __name__ == "__main__":
    main()
