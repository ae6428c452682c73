"""Client models with weights of a few bits: trained at each width, beside rounded after they were trained.

    python benchmarks/low_bit.py
    python benchmarks/low_bit.py --seeds 5 model=eurosat_cnn dataset=eurosat rounds=50

Prints one table: test accuracy of runs with `weight_bits` of each width, and of the run without it whose
weights are rounded at its end by the same quantizer; and what the client model takes, packed: codes, a scale
in float32 for each output channel, and all else (biases, batch normalisation) in float32. Further arguments
are overrides.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.experiments import build
from fedsplit.models.rounding.fake_quantization import FakeQuantizedConv2d, FakeQuantizedLinear
from fedsplit.training.experiment import Experiment

WIDTHS = (16, 8, 4, 2, 1)


def trained(overrides: Sequence[str]) -> Experiment:
    """A run that has ended."""
    run = build(*overrides)
    for t in range(run.limits.rounds):
        run.run_round(t)
    return run


def size_of(model: nn.Module) -> int:
    """Bytes of all that it holds, in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def packed_bytes(run: Experiment, bits: int) -> int:
    """What the client model takes with weights of so many bits."""
    client = run.parts.models.halves.client
    layers = [
        each for each in client.modules() if isinstance(each, FakeQuantizedConv2d | FakeQuantizedLinear)
    ]
    weights = sum(layer.weight.numel() for layer in layers)
    scales = sum(len(layer.weight) for layer in layers)
    return size_of(client) - 4 * weights + -(-weights * bits // 8) + 4 * scales


def shown(accuracies: Sequence[float]) -> str:
    """In percent, over seeds."""
    told = f"{100 * mean(accuracies):.2f}"
    return told if len(accuracies) < 2 else f"{told} ± {100 * stdev(accuracies):.2f}"


def main() -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options, overrides = parser.parse_known_args()
    seeds = [[*overrides, "progress=false", f"seed={seed}"] for seed in range(options.seeds)]
    exact = [trained(each) for each in seeds]
    full = [run.algorithm.full_weights() for run in exact]
    table = Table()
    for column in ("bits a weight", "trained so, %", "rounded later, %", "client, bytes"):
        table.add_column(column, justify="right")
    before = [run.evaluate(weights).accuracy for run, weights in zip(exact, full, strict=True)]
    size = size_of(exact[0].parts.models.halves.client)
    table.add_row("32", shown(before), shown(before), f"{size:,}")
    for bits in WIDTHS:
        runs = [trained([*each, f"weight_bits={bits}"]) for each in seeds]
        accuracies = [run.evaluate(run.algorithm.full_weights()).accuracy for run in runs]
        after = [run.evaluate(weights).accuracy for run, weights in zip(runs, full, strict=True)]
        table.add_row(str(bits), shown(accuracies), shown(after), f"{packed_bytes(runs[0], bits):,}")
    Console().print(table)


if __name__ == "__main__":
    main()
