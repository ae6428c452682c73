"""What a run gives does not depend on the wire: local and grpc agree in every bit, and in every byte.

Runs are built in this process, with three client processes each. Those are forked from one that has imported
everything, for that takes longer than a run; the sweep on the command line starts them as users do.
"""

import re
import shutil
from pathlib import Path

import pytest

from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.cases import long_but
from tests.command_line import command_line
from tests.conftest import ALGORITHMS, METHODS, TINY, Build
from tests.transport.runs import assert_same, metrics, ran
from tests.transport.weighing import ChunkWeigher, counted

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
        "model=resnet20",
        "model.cut=layer1",
        "auxiliary=linear",
        "rounds=2",
        "quant=int8",
    ],
    "error feedback": ["quant=int4", "optimizer=sgd", "optimizer.momentum=0.9"],
    "error feedback of the whole model": ["algorithm=fed_avg", "quant=int2", "cohort_size=2"],
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
    "clients without state": ["client.stateless=true", "quant=int4", "cohort_size=2"],
    "a warm start": ["algorithm.warm_start=1", "quant=int8"],
    "a schedule, epochs": ["algorithm=cse_fsl", "scheduler=cosine", "local_epochs=2", "seed=7"],
    "two optimizers": ["algorithm=splitfed_v1", "client_optimizer=adamw", "server_optimizer=sgd"],
    "held-out samples": [
        "dataset.local_test_fraction=0.2",
        "distribution=feature_shift",
        "measure_gradient_error=true",
    ],
    "simulated seconds of an alignment": ["network=lte", "cohort_size=2", "quant=int8"],
    "simulated seconds of turns": ["algorithm=splitfed_v2", "network=satellite", "network.cost_per_mb=0.1"],
    "clients trained for int8": ["qat=true", "quant=int8"],
    "clients with weights of two bits": ["algorithm=splitfed_v2", "weight_bits=2", "qat=true"],
    "a tail at the clients": ["algorithm=splitfed_v1", "model.tail_cut=relu3", "quant=int8", "cohort_size=2"],
    "control variates": ["algorithm=scaffold", "cohort_size=2", "quant=int8", "rounds=3"],
    "a shared client model": ["algorithm=ho_sfl", "cohort_size=2", "optimizer=sgd", "quant=int8", "rounds=3"],
    "an estimator without a model": ["estimator=linear_regression", "algorithm.align_interval=2"],
}

EVERY_RUN = (
    "a cohort drawn each round",
    "batch normalisation",
    "random codecs",
    "clients without state",
    "clients trained for int8",
    "a tail at the clients",
    "control variates",
    "a shared client model",
)
"""Cases of every run: different code of the transport computes each; the others differ elsewhere."""


def assert_same_over_both(
    tiny: Build, tmp_path: Path, chunk_weigher: ChunkWeigher, overrides: list[str]
) -> None:
    overrides = ["num_clients=3", "rounds=2", *overrides]
    local = ran(tiny(*overrides, "engine=sequential"), tmp_path / "local")
    experiment = tiny(*overrides, "transport=grpc")
    grpc = ran(experiment, tmp_path / "grpc")
    assert_same(local, grpc)
    assert chunk_weigher.carried == counted(experiment)
    apart = sum(int(row["broadcast_copies"]) + int(row["observed_bytes"]) for row in metrics(grpc))
    assert sum(chunk_weigher.carried.values()) == int(metrics(grpc)[-1]["load"]) + apart
    assert chunk_weigher.saw_labels == any(int(row["bytes.up.labels"]) for row in metrics(grpc))
    for row in metrics(grpc):
        assert (row["retransmitted.up"], row["retransmitted.down"]) == ("0", "0")


@pytest.mark.long  # each of the two is in every run, and so is each transport
def test_jobs_of_a_sweep_give_the_same_over_both_transports(tmp_path: Path) -> None:
    overrides = [*TINY, "num_clients=2", "rounds=1", "engine=sequential", "quant=int8"]
    overrides += ["hydra.launcher.n_jobs=1"]
    done = command_line(*overrides, "-m", "transport=local,grpc", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    sweep = tmp_path / done.stdout.splitlines()[-1]
    assert_same(sweep / "0", sweep / "1")


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize(
    ("overrides", "rounds", "damaged"),
    [
        (["quant=int4", "cohort_size=2", "algorithm.align_interval=2"], 3, False),
        pytest.param(["algorithm=splitfed_v1", "optimizer=adam"], 2, True, marks=pytest.mark.long),
    ],
    ids=["newest checkpoint", "the one before"],
)
def test_grpc_run_that_is_resumed_gives_the_same_as_one_that_was_never_stopped(
    tiny: Build, tmp_path: Path, overrides: list[str], rounds: int, damaged: bool
) -> None:
    """Stopped after so many rounds, and resumed for one more."""
    overrides = [*overrides, "checkpoint_interval=1", "transport=grpc"]
    whole = ran(tiny(*overrides, f"rounds={rounds + 1}"), tmp_path / "whole")
    stopped = ran(tiny(*overrides, f"rounds={rounds}"), tmp_path / "stopped")
    if damaged:
        newest = max((stopped / "checkpoint").iterdir()) / "state.safetensors"
        newest.write_bytes(newest.read_bytes()[:-1])
    directory = RunDirectory.existing(stopped)
    experiment = Experiment(resumed_config(directory, {"rounds": rounds + 1}))
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.rounds == (rounds - 1 if damaged else rounds)
    experiment.restore(checkpoint)
    experiment.run(directory)
    assert_same(whole, stopped)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize("case", long_but(EVERY_RUN, CASES))
def test_local_and_grpc_give_the_same_with_other_settings(
    tiny: Build, tmp_path: Path, chunk_weigher: ChunkWeigher, case: str
) -> None:
    assert_same_over_both(tiny, tmp_path, chunk_weigher, CASES[case])


@pytest.mark.cover(1)
@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize(("quant", "threads"), [("none", 1), ("int8", 2)])
@pytest.mark.parametrize(
    "algorithm", long_but(["fed_avg", "fsl_sage"], ALGORITHMS)
)  # others have settings above
def test_local_and_grpc_give_the_same(
    *, tiny: Build, tmp_path: Path, chunk_weigher: ChunkWeigher, algorithm: str, quant: str, threads: int
) -> None:
    overrides = [f"algorithm={algorithm}", f"quant={quant}", f"threads={threads}", "num_clients=2"]
    assert_same_over_both(tiny, tmp_path, chunk_weigher, overrides)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize("algorithm", long_but(["ampere", "sglr", "splitfed_v3"], METHODS))
def test_local_and_grpc_give_the_same_with_further_algorithms(
    tiny: Build, tmp_path: Path, chunk_weigher: ChunkWeigher, algorithm: str
) -> None:
    overrides = [f"algorithm={algorithm}", *METHODS[algorithm], "num_clients=2", "rounds=3"]
    assert_same_over_both(tiny, tmp_path, chunk_weigher, overrides)


@pytest.mark.usefixtures("warm_processes")
def test_two_commands_that_the_guide_to_networks_compares_give_the_same(
    root: Path, tiny: Build, tmp_path: Path
) -> None:
    guide = (root / "docs" / "network.md").read_text("utf-8")
    pair = re.search(r"These two give the same.*\n\n((?: {4}.*\n){2})", guide)
    assert pair is not None
    one, other = (line.removeprefix("    python main.py ").split() for line in pair[1].splitlines())
    assert (one, other) == (["engine=sequential"], ["transport=grpc"])
    assert_same(
        ran(tiny("rounds=1", *one), tmp_path / "one"), ran(tiny("rounds=1", *other), tmp_path / "other")
    )


def test_comparison_of_runs_notices_other_metrics_and_another_last_bit(tiny: Build, tmp_path: Path) -> None:
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
