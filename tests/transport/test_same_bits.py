"""What a run gives does not depend on the wire: local and grpc agree in every bit, and in every byte.

Runs are built in this process, with four client processes each. Those come ready from a nursery, for to
import everything takes longer than a run; the tests of the command line at the end start them as users do.
"""

import shutil
from pathlib import Path

import pytest

from fedsplit.experiment import Experiment, resumed_config
from fedsplit.results.run_directory import RunDirectory
from tests.cases import long_but
from tests.command_line import command_line
from tests.conftest import ALGORITHMS, TINY, Build
from tests.transport.runs import assert_same, metrics, ran, state
from tests.transport.weighing import Weighs, counted

CASES = {
    "ragged clients": ["distribution=dirichlet", "distribution.alpha=0.3"],
    "coded whole, then exactly": [
        "cohort_size=2",
        "quant.weights.whole=int8_block",
        "quant.weights.up=int8_block",
    ],
    "coded up alone": ["algorithm=fed_avg", "cohort_size=2", "quant.weights.up=int4_block", "rounds=5"],
    "a cohort drawn each round": ["cohort_size=2", "algorithm.align_interval=2", "quant=int4", "rounds=5"],
    "batch normalisation": [
        "algorithm=cse_fsl",
        "model=resnet18",
        "model.cut=maxpool",
        "auxiliary=linear",
        "dataset.max_train=40",
        "rounds=2",
        "quant=int8",
    ],
    "error feedback": ["quant=int4", "optimizer=sgd", "optimizer.momentum=0.9"],
    "error feedback of the whole model": ["algorithm=fed_avg", "quant=int2", "cohort_size=3"],
    "random codecs": [
        "algorithm=splitfed_v2",
        "quant.smashed=randtopk",
        "quant.cut_gradient=affine",
        "quant.cut_gradient.rounding=stochastic",
        "quant.weights=int4_block",
    ],
    "lossless last stage": ["quant=thrifty", "algorithm.align_interval=2"],
    "lossless last stage of gradients": ["quant=thrifty", "algorithm=splitfed_v1", "rounds=2"],
    "heads go on from what is decoded": [
        "algorithm=cse_fsl",
        "quant=int4",
        "quant.continue_from_decoded=true",
    ],
    "clients without state": ["client.stateless=true", "quant=int4", "cohort_size=3"],
    "a warm start": ["algorithm.warm_start=1", "quant=int8"],
    "a schedule, epochs": ["algorithm=cse_fsl", "scheduler=cosine", "local_epochs=2", "seed=7"],
    "two optimizers": ["algorithm=splitfed_v1", "client_optimizer=adamw", "server_optimizer=sgd"],
    "held-out samples": [
        "dataset.local_test_fraction=0.2",
        "distribution=feature_shift",
        "measure_gradient_error=true",
    ],
    "simulated seconds of an alignment": ["network=lte", "cohort_size=3", "quant=int8"],
    "simulated seconds of turns": ["algorithm=splitfed_v2", "network=satellite", "network.cost_per_mb=0.1"],
    "clients trained for int8": ["qat=true", "quant=int8"],
    "clients with weights of two bits": ["algorithm=splitfed_v2", "weight_bits=2", "qat=true"],
    "an estimator without a model": ["estimator=linear_regression", "algorithm.align_interval=2"],
}

EVERY_RUN = (
    "ragged clients",
    "coded whole, then exactly",
    "a cohort drawn each round",
    "batch normalisation",
    "error feedback of the whole model",
    "random codecs",
    "lossless last stage",
    "heads go on from what is decoded",
    "clients without state",
    "held-out samples",
    "clients trained for int8",
)
"""Each is computed by other code; what else is in `CASES` combines them."""


def assert_same_over_both(tiny: Build, tmp_path: Path, weighs: Weighs, overrides: list[str]) -> None:
    overrides = ["num_clients=4", *overrides]
    local = ran(tiny(*overrides, "engine=sequential"), tmp_path / "local")
    experiment = tiny(*overrides, "transport=grpc")
    grpc = ran(experiment, tmp_path / "grpc")
    assert_same(local, grpc)
    assert weighs.carried == counted(experiment)
    assert sum(weighs.carried.values()) == int(metrics(grpc)[-1]["load"])
    for row in metrics(grpc):
        assert (row["retransmitted.up"], row["retransmitted.down"]) == ("0", "0")


@pytest.mark.cover(1)
@pytest.mark.usefixtures("nursed")
@pytest.mark.parametrize(("quant", "threads"), [("none", 1), ("int8", 2)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_local_and_grpc_give_the_same(
    *, tiny: Build, tmp_path: Path, weighs: Weighs, algorithm: str, quant: str, threads: int
) -> None:
    overrides = [f"algorithm={algorithm}", f"quant={quant}", f"threads={threads}", "rounds=2"]
    assert_same_over_both(tiny, tmp_path, weighs, overrides)


@pytest.mark.usefixtures("nursed")
@pytest.mark.parametrize("case", long_but(EVERY_RUN, CASES))
def test_local_and_grpc_give_the_same_with_other_settings(
    tiny: Build, tmp_path: Path, weighs: Weighs, case: str
) -> None:
    assert_same_over_both(tiny, tmp_path, weighs, CASES[case])


def test_what_is_compared_tells_other_runs_apart(tiny: Build, tmp_path: Path) -> None:
    one = ran(tiny("rounds=1"), tmp_path / "one")
    other = ran(tiny("rounds=1", "seed=1"), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same(one, other)
    same = shutil.copytree(one, tmp_path / "same")
    assert_same(one, same)
    model = same / "model/client.safetensors"
    *others, last = model.read_bytes()
    model.write_bytes(bytes([*others, last ^ 1]))
    with pytest.raises(AssertionError, match="client"):
        assert_same(one, same)


@pytest.mark.usefixtures("nursed")
@pytest.mark.parametrize(
    ("overrides", "damaged"),
    [
        (["quant=int4", "cohort_size=3", "algorithm.align_interval=2"], False),
        (["algorithm=splitfed_v1", "optimizer=adam"], True),
    ],
    ids=["newest", "the one before"],
)
def test_a_run_that_is_resumed_gives_what_one_gives_that_was_never_stopped(
    tiny: Build, tmp_path: Path, overrides: list[str], damaged: bool
) -> None:
    overrides = [*overrides, "num_clients=4", "checkpoint_interval=1", "transport=grpc"]
    whole = ran(tiny(*overrides, "rounds=5"), tmp_path / "whole")
    stopped = ran(tiny(*overrides, "rounds=3"), tmp_path / "stopped")
    if damaged:
        newest = max((stopped / "checkpoint").iterdir()) / "state.safetensors"
        newest.write_bytes(newest.read_bytes()[:-1])
    directory = RunDirectory.existing(stopped)
    experiment = Experiment(resumed_config(directory, {"rounds": 5}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.rounds == (2 if damaged else 3)
    experiment.restore(checkpoint)
    experiment.run(directory)
    assert_same(whole, stopped)


def test_on_the_command_line_too_in_a_sweep_and_resumed(tmp_path: Path) -> None:
    def main(*arguments: str) -> Path:
        done = command_line(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return tmp_path / done.stdout.splitlines()[-1]

    overrides = [*TINY, "num_clients=4", "rounds=2", "engine=sequential", "quant=int8"]
    sweep = main(*overrides, "-m", "transport=local,grpc")
    local, grpc = sweep / "0", sweep / "1"
    assert_same(local, grpc)
    alone = main(*overrides, "rounds=3")
    assert main(f"resume={grpc}", "rounds=3") == grpc
    assert_same(alone, grpc)
    assert len(metrics(grpc)) == len(state(grpc)["ledger"]) == 3
