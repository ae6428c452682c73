"""What codecs cost in training: rounds with a `quant` preset beside rounds without, in turns.

    python benchmarks/quant_overhead.py

One process, one thread, images of noise; the two experiments take turns round by round, and the ratio of
each pair of rounds is what counts. `--help` lists the options.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks.experiments import build, one_round, seconds
from fedsplit.training.experiment import Experiment


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["splitfed_v1", "cse_fsl", "fsl_sage"])
    parser.add_argument("--quant", nargs="+", default=["int8", "int4", "thrifty"])
    parser.add_argument("--model", default="simple_conv")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--samples", type=int, default=512, help="of each client")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7, help="of each pair, beside one that warms up")
    parser.add_argument("--align-interval", type=int, default=1000)
    parser.add_argument("--align-epochs", type=int, default=1)
    options = parser.parse_args()
    table = Table(
        title=f"{options.model}, batch {options.batch}: seconds a round, medians", title_justify="left"
    )
    for column in ("algorithm", "quant", "none", "quantized", "ratio"):
        table.add_column(column, no_wrap=True)
    for algorithm in options.algorithms:
        for quant in options.quant:
            runs = [experiment(algorithm, options), experiment(algorithm, options, f"quant={quant}")]
            pairs = [
                [seconds(lambda r=r, t=t: one_round(r, t)) for r in runs] for t in range(options.rounds + 1)
            ]
            plain, coded = (median(pair[i] for pair in pairs[1:]) for i in (0, 1))
            ratio = median(pair[1] / pair[0] for pair in pairs[1:])
            table.add_row(algorithm, quant, f"{plain:.3f}", f"{coded:.3f}", f"{ratio:.3f}")
    Console().print(table)


def experiment(algorithm: str, options: argparse.Namespace, *further: str) -> Experiment:
    """On images of noise, with further overrides."""
    aligned = [f"algorithm.align_interval={options.align_interval}"] if algorithm == "fsl_sage" else []
    return build(
        f"algorithm={algorithm}",
        f"model={options.model}",
        f"num_clients={options.clients}",
        f"batch_size={options.batch}",
        f"auxiliary.align_epochs={options.align_epochs}",
        *aligned,
        *further,
        noise={
            "train": options.clients * options.samples,
            "test": 200,
            "flip": True,
            "crop_padding": 4,
        },
    )


if __name__ == "__main__":
    main()
