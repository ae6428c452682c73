"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import csv
import random
import time
from pathlib import Path

import pytest
import torch

from fedsplit.recording.checkpoint import Checkpoint, load_latest, save
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.command_line import command_line
from tests.conftest import ALGORITHMS, METHODS, TINY, Build
from tests.transport.processes import Command

ALONE = [
    *([f"algorithm={name}"] for name in ALGORITHMS),
    *([f"algorithm={name}", *settings] for name, settings in METHODS.items()),
]
VARIANTS = [
    ["algorithm=fsl_sage", "algorithm.align_when=error", "algorithm.align_error=0.9", "cohort_size=2"],
    ["algorithm=ampere", "algorithm.device_rounds=1", "cohort_size=2", "quant=int8"],
    ["algorithm=fed_avg", "optimizer=sgd", "optimizer.momentum=0.9", "scheduler=cosine", "cohort_size=2"],
    ["algorithm=fsl_sage", "algorithm.align_interval=2", "algorithm.warm_start=1", "cohort_size=2"],
    ["algorithm=fsl_sage", "estimator=mlp_regression", "client_optimizer=adamw", "local_epochs=2"],
    ["algorithm=ho_sfl", "optimizer=sgd", "cohort_size=2"],
    ["algorithm=scaffold", "cohort_size=2", "quant=int8"],
    ["algorithm=splitfed_v1", "model=resnet20", "dataset.max_train=50"],
    ["network=lte", "network.cost_per_mb=0.1", "algorithm.align_interval=2", "cohort_size=2"],
]
_VARIED = {variant[0] for variant in VARIANTS}
"""Algorithms of which a variant holds all that they hold alone."""


def bits(run: Experiment) -> dict[str, torch.Tensor]:
    """All tensors of a run's state, by path."""
    found: dict[str, torch.Tensor] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, torch.Tensor):
            found[path] = node.detach().clone()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(run.checkpoint().state, "")
    return found


@pytest.mark.cover(1)
@pytest.mark.parametrize(
    "overrides", [*long_but(lambda each: each[0] not in _VARIED, ALONE), *VARIANTS], ids=" ".join
)
@pytest.mark.parametrize("stop", [1, 2])
def test_run_restored_from_a_checkpoint_continues_bit_for_bit(
    tiny: Build, tmp_path: Path, overrides: list[str], stop: int
) -> None:
    straight = tiny(*overrides)
    for t in range(3):
        straight.records.append(straight.run_round(t))
        if t + 1 == stop:
            save(tmp_path / "checkpoint", straight.checkpoint())
    resumed = tiny(*overrides)
    found = load_latest(tmp_path / "checkpoint")
    assert isinstance(found, Checkpoint)
    resumed.restore(found)
    for t in range(stop, 3):
        resumed.records.append(resumed.run_round(t))
    expected, actual = bits(straight), bits(resumed)
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert resumed.ledger.state() == straight.ledger.state()
    for ours, theirs in zip(resumed.records, straight.records, strict=True):
        assert without_seconds(ours.row()) == without_seconds(theirs.row())


def without_seconds(row: dict[str, object]) -> dict[str, object]:
    return {column: value for column, value in row.items() if not column.startswith("seconds.")}


def done(*arguments: str) -> str:
    """The last line that a command says that goes well."""
    told = command_line(*arguments)
    assert told.returncode == 0, told.stderr
    return told.stdout.splitlines()[-1]


def metrics(directory: Path) -> list[dict[str, object]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return [without_seconds(dict(row)) for row in csv.DictReader(file)]


@pytest.mark.parametrize("algorithm", long_but(["fsl_sage"], ["fsl_sage", "splitfed_v1"]))
def test_run_resumed_after_a_kill_at_a_random_moment_equals_an_uninterrupted_one(
    tmp_path: Path, algorithm: str
) -> None:
    overrides = [*TINY, f"algorithm={algorithm}", "rounds=12", "checkpoint_interval=2"]
    overrides += ["algorithm.align_interval=3"] if algorithm == "fsl_sage" else []
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done(*overrides, f"hydra.run.dir={whole}")

    moment = random.Random(time.time_ns()).uniform(0.0, 0.5)  # any moment must do, so each run takes another
    running = Command([*overrides, f"hydra.run.dir={killed}"], tmp_path / "killed.txt")
    while not (killed / "metrics.csv").exists():
        assert running.exit_code is None
        time.sleep(0.001)
    time.sleep(moment)
    running.kill()

    assert done(f"resume={killed}") == str(killed)
    assert metrics(killed) == metrics(whole), f"killed {moment} s after the start"
    models = sorted(path.relative_to(whole) for path in whole.glob("model/*"))
    assert models == sorted(path.relative_to(killed) for path in killed.glob("model/*"))
    for path in models:
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), f"{path}, killed after {moment} s"


def test_finished_run_resumed_with_more_rounds_equals_a_run_of_as_many(tmp_path: Path) -> None:
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    for directory, rounds in ((whole, 4), (extended, 2)):
        done(*TINY, f"rounds={rounds}", f"hydra.run.dir={directory}")
    done(f"resume={extended}", "rounds=4")
    assert metrics(extended) == metrics(whole)
    assert (extended / "model/client.safetensors").read_bytes() == (
        whole / "model/client.safetensors"
    ).read_bytes()


def test_rounds_after_the_last_undamaged_checkpoint_are_run_again_to_the_same_metrics(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    done(*TINY, "checkpoint_interval=1", f"hydra.run.dir={directory}")
    before = metrics(directory)
    newest = max((directory / "checkpoint").iterdir()) / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    done(f"resume={directory}")
    assert metrics(directory) == before
