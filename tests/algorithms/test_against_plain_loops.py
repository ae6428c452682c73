"""Every algorithm against a plain loop that shares nothing with it but data and initial weights."""

import pytest
import torch

from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build
from tests.oracles.plain_loops import PlainLoop, adam, sgd

OVERRIDES = {"fsl_sage": ["algorithm.align_interval=2"]}

SMALL = ("digits_cnn", "resnet20")
"""Small models, one without batch normalisation and one with it."""


@pytest.mark.cover(2)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("engine", ["auto", "sequential"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_in_three_rounds_gives_the_weights_of_a_plain_loop(
    tiny: Build, algorithm: str, engine: str, optimizer: str
) -> None:
    overrides = [f"algorithm={algorithm}", f"optimizer={optimizer}", f"engine={engine}"]
    experiment = tiny(*overrides, *OVERRIDES.get(algorithm, []))
    reference = PlainLoop(experiment, {"adam": adam, "sgd": sgd}[optimizer])
    if algorithm == "cse_fsl":
        reference.auxiliary_steppers = [reference.optimizer(module) for module in reference.auxiliaries]
    for t in range(3):
        experiment.run_round(t)
        getattr(reference, algorithm)(t)
    ours, theirs = experiment.algorithm.full_weights(), reference.full_weights()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", long_but([], ["resnet20", "resnet18"]))
def test_auxiliary_model_with_batch_norm_aligns_as_in_a_plain_loop(cifar_sized: Build, model: str) -> None:
    # One round, and images of 32x32: with those of 8x8 single pixels are normalised over 8 samples, some
    # channels are constant, and what ReLU lets through depends on the last bits of an alignment.
    experiment = cifar_sized("algorithm=fsl_sage", f"model={model}", "optimizer=sgd")
    reference = PlainLoop(experiment, sgd)
    experiment.run_round(0)
    reference.fsl_sage(0)
    ours, theirs = experiment.algorithm.full_weights(), reference.full_weights()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-9, msg=name)
    for client, auxiliary in enumerate(reference.auxiliaries):
        aligned = experiment.algorithm.auxiliary_weights()[f"auxiliary-{client}"]
        for name, parameter in auxiliary.named_parameters():
            torch.testing.assert_close(aligned[name], parameter.detach(), rtol=0, atol=1e-10, msg=name)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", long_but(SMALL, [*SMALL, "resnet18"]))
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_splitfed_v1_gives_the_losses_and_weights_of_fed_avg(tiny: Build, optimizer: str, model: str) -> None:
    runs = [
        tiny(
            f"algorithm={name}",
            f"optimizer={optimizer}",
            f"model={model}",
            "local_epochs=2",
            "dataset.max_train=50",
        )
        for name in ("fed_avg", "splitfed_v1")
    ]
    for t in range(2):
        losses = [run.run_round(t).train_loss for run in runs]
        assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    fed_avg, splitfed = (run.algorithm.full_weights() for run in runs)
    for name, tensor in fed_avg.items():
        torch.testing.assert_close(tensor, splitfed[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_splitfed_v1_gives_the_bits_of_fed_avg_where_the_same_kernels_run(
    tiny: Build, optimizer: str
) -> None:
    runs = [tiny(f"algorithm={name}", f"optimizer={optimizer}") for name in ("fed_avg", "splitfed_v1")]
    for t in range(3):
        for run in runs:
            run.run_round(t)
    fed_avg, splitfed = (run.algorithm.full_weights() for run in runs)
    assert all(torch.equal(tensor, splitfed[name]) for name, tensor in fed_avg.items())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", long_but(SMALL, [*SMALL, "resnet18"]))
def test_splitfed_v2_with_one_client_gives_the_weights_of_centralised_training(
    tiny: Build, model: str
) -> None:
    experiment = tiny("algorithm=splitfed_v2", "num_clients=1", f"model={model}", "dataset.max_train=50")
    reference = PlainLoop(experiment)
    # fused as ours is: where one pixel is normalised over eight samples, last bits grow to be seen
    parameters = [*reference.client.parameters(), *reference.server.parameters()]
    stepper = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    for t in range(2):
        experiment.run_round(t)
        for _, x, y in reference.batches(t, 0):
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(reference.server(reference.client(x)), y).backward()
            stepper.step()
    ours, theirs = experiment.algorithm.full_weights(), reference.full_weights()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-10, msg=name)
