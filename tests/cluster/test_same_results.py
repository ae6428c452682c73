"""A run over workers leaves what the same run in one process leaves, bit for bit."""

from functools import cache
from pathlib import Path

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.training.experiment import Experiment
from tests.configurations import configuration
from tests.conftest import ALGORITHMS, METHODS, TINY

ROUNDS = 3
TURNS = {"splitfed_v2", "vanilla_sl"}
SPREAD = {name: settings for name, settings in {**dict.fromkeys(ALGORITHMS, ()), **METHODS}.items() if name not in TURNS}
IN_PROCESS = "cluster._target_=fedsplit.cluster.in_process.InProcess"


def built(*overrides: str) -> Experiment:
    config = configuration(*TINY, *overrides)
    prepare_process(config)
    return Experiment(config)


def over(workers: int) -> list[str]:
    return [IN_PROCESS, f"+cluster.workers={workers}"]


def leaves(node: object, path: str = "") -> dict[str, object]:
    """Everything in the state of a run, by path, but for seconds and what names the cluster."""
    if isinstance(node, dict):
        found: dict[str, object] = {}
        for key, each in node.items():
            if key not in ("seconds", "elapsed", "identity"):
                found |= leaves(each, f"{path}/{key}")
        return found
    if isinstance(node, list):
        return {name: leaf for n, each in enumerate(node) for name, leaf in leaves(each, f"{path}/{n}").items()} | {f"{path}/len": len(node)}
    return {path: node.detach().clone() if isinstance(node, torch.Tensor) else node}


def trained(run: Experiment, rounds: int = ROUNDS) -> dict[str, object]:
    with run.transport.opened(Path()):
        for t in range(len(run.records), rounds):
            run.records.append(run.run_round(t))
        return leaves(run.checkpoint().state)


def differing(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    assert ours.keys() == theirs.keys()
    return [
        name
        for name, leaf in ours.items()
        if not (torch.equal(leaf, theirs[name]) if isinstance(leaf, torch.Tensor) else repr(leaf) == repr(theirs[name]))
    ]


def settings_of(algorithm: str, quant: str, engine: str) -> tuple[str, ...]:
    """Sampled clients of unlike sizes; stacks of one, two or three clients."""
    settings = [f"algorithm={algorithm}", *SPREAD[algorithm], f"quant={quant}", f"engine={engine}"]
    settings += ["num_clients=6", "cohort_size=4", "distribution=dirichlet", "distribution.alpha=1"]
    settings += ["algorithm.align_interval=2"] if algorithm == "fsl_sage" else []
    settings += ["engine.stack_mb=0.2"] if engine == "vectorized" else []
    return tuple(settings)


@cache
def in_one_process(settings: tuple[str, ...]) -> dict[str, object]:
    return trained(built(*settings))


@pytest.mark.cover(2)
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("quant", ["none", "int8", "thrifty"])
@pytest.mark.parametrize("algorithm", SPREAD)
def test_run_over_workers_leaves_the_state_of_a_run_in_one_process(
    algorithm: str, quant: str, engine: str, workers: int
) -> None:
    settings = settings_of(algorithm, quant, engine)
    assert differing(trained(built(*settings, *over(workers))), in_one_process(settings)) == []
