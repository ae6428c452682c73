"""Every algorithm on a GPU, with and without CUDA graphs, beside a plain loop; its losses beside a CPU's.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --paper --images datas/cifar10_jpeg --out paper.json

Needs torch, torchvision, numpy, hydra-core and omegaconf, and no installation of this package. `--paper`
trains FSL-SAGE on real images for 200 rounds, and needs Pillow and safetensors. Without a GPU: the CPU.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from hydra import initialize_config_dir

from benchmarks.floors import Floor
from benchmarks.synthetic import SyntheticImages
from fedsplit.building.process import prepare_process
from fedsplit.building.run import build_run
from fedsplit.computing.captured_steps import WARM_UP
from fedsplit.config.choices import CONFIGS
from fedsplit.config.component import component_of
from fedsplit.config.compose import compose_config, run_config
from tests.oracles.plain_loops import adam

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")


class Run:
    """Rounds of an algorithm, without the files that a run leaves behind."""

    def __init__(self, *overrides: str, noise: int | None = None) -> None:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = run_config(
                compose_config([*overrides, "hydra/launcher=basic"])
            )  # joblib may not be there
        if noise is not None:
            images = {"train": noise, "test": 200, "flip": True, "crop_padding": 4}
            config = replace(config, dataset=component_of("dataset", SyntheticImages, **images))
        prepare_process(config)
        self.parts = build_run(config)
        self.ledger, self.transport = self.parts.ledger, self.parts.transport

    def round(self, t: int) -> float:
        """Its training loss."""
        with torch.random.fork_rng(devices=[]):
            cohort = self.transport.cohort(t, self.parts.cohort_of(t))
            metrics = self.parts.algorithm.run_round(t, cohort)
            cohort.settle()
        return metrics.train_loss


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done `work`."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def throughput(options: argparse.Namespace, model: str, algorithm: str) -> dict[str, object]:
    """One line: an algorithm's rounds in turns with its floor's, and its losses on both devices.

    On a GPU, rounds of captured steps take turns with them. Before turns count, batches that come once a
    round have come often enough to be captured.
    """
    common = [f"algorithm={algorithm}", f"model={model}", f"precision={options.precision}"]
    common += [f"num_clients={options.clients}", f"batch_size={options.batch}", *options.overrides]
    if algorithm == "fsl_sage":
        common += ["algorithm.align_interval=1000", "auxiliary.align_epochs=1"]
    samples = options.clients * options.samples
    run = Run(*common, f"device={options.device}", noise=samples)
    floor = Floor(run.parts, algorithm, options.batch, adam)
    device = run.parts.device
    captured = None
    if device.type == "cuda":
        captured = Run(*common, f"device={options.device}", "cuda_graphs=true", noise=samples)
    warm_up = WARM_UP + 1 if captured else 1
    turns = []
    for t in range(warm_up + options.rounds):
        turns.append([seconds(lambda t=t: run.round(t), device), seconds(floor, device)])
        if captured:
            turns[-1].append(seconds(lambda t=t: captured.round(t), device))
    counted = turns[warm_up:]
    taken, at_floor = (median(turn[i] for turn in counted) for i in (0, 1))
    small = [f"algorithm={algorithm}", f"model={model}", "num_clients=2", "batch_size=16"]
    losses = [Run(*small, f"device={d}", noise=64).round(0) for d in (options.device, "cpu")]
    graphs: dict[str, object] = {"graphs": "none: they are for CUDA devices"}
    if captured:
        often = [*small, "local_epochs=3", f"device={options.device}"]  # so that steps are replayed
        ends = [Run(*often, f"cuda_graphs={each}", noise=64).round(0) for each in ("false", "true")]
        graphs = {
            "graphs, samples/s": round(samples / median(turn[2] for turn in counted)),
            "without / with graphs": round(median(turn[0] / turn[2] for turn in counted), 3),
            "graphs agree": abs(ends[0] - ends[1]) < 1e-3 * abs(ends[0]),
        }
    return {
        "model": model,
        "algorithm": algorithm,
        "samples/s": round(samples / taken),
        "floor, samples/s": round(samples / at_floor),
        "fraction of floor": round(median(turn[1] / turn[0] for turn in counted), 3),
        **graphs,
        "loss": losses[0],
        "loss on CPU": losses[1],
        "agrees": abs(losses[0] - losses[1]) < 1e-3 * abs(losses[1]),
        "seconds": turns,
    }


def paper(options: argparse.Namespace) -> list[dict[str, object]]:
    """The paper's setting: ResNet-18, CIFAR-10, 10 clients; a line a round."""
    run = Run(
        "algorithm=fsl_sage",
        "experiment=paper_cifar10",
        "dataset=image_folder",
        f"dataset.root={options.images}",
        "dataset.flip=true",
        "dataset.crop_padding=4",
        f"device={options.device}",
        f"precision={options.precision}",
        *options.overrides,
    )
    evaluate, began, lines = run.parts.evaluate, time.perf_counter(), []
    for t in range(options.paper_rounds):
        loss = run.round(t)
        scores = evaluate(run.parts.algorithm.full_weights())
        lines.append(
            {
                "round": t,
                "train_loss": loss,
                "test_loss": scores.loss,
                "test_accuracy": scores.accuracy,
                "load": run.ledger.load,
                "seconds": time.perf_counter() - began,
            }
        )
        if (t + 1) % 10 == 0:
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and print, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--models", nargs="+", default=["resnet18", "simple_conv"])
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=ALGORITHMS)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1280, help="images of each client")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="turns that count, after those that warm up")
    parser.add_argument("--paper", action="store_true", help="the paper's setting instead")
    parser.add_argument("--paper-rounds", type=int, default=200)
    parser.add_argument("--images", type=Path, help="of --paper: holds train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    options, options.overrides = parser.parse_known_args()
    if options.paper and options.images is None:
        parser.error("--paper needs --images")
    if options.paper:
        lines = paper(options)
    else:
        lines = [throughput(options, model, each) for model in options.models for each in options.algorithms]
        for line in lines:
            print({key: value for key, value in line.items() if key != "seconds"})
    if options.out:
        options.out.write_text(json.dumps(lines, indent=2) + "\n")


if __name__ == "__main__":
    main()
