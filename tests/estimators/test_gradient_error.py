"""How far estimated cut gradients are off, as a run measures it."""

from collections import OrderedDict
from math import inf, isnan

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedsplit.algorithms.fsl_sage import FslSage
from fedsplit.computing.model_state import ModelState
from fedsplit.data.batches import batch_slices
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.models.auxiliary import LinearAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.optim.optimizers import Adam
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Build
from tests.training.test_resume import bits, without_seconds

MEASURED = "measure_gradient_error=true"


def with_dropout(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Draws masks in the server model, and in an auxiliary model that is derived from it."""
    return _small(nn.Dropout(0.5), num_classes, channels * image_size**2)


def with_batch_statistics(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Normalises batches in the server model, and in an auxiliary model that is derived from it."""
    return _small(nn.BatchNorm1d(16), num_classes, channels * image_size**2)


def _small(layer: nn.Module, num_classes: int, pixels: int) -> nn.Module:
    layers = {
        "flat": nn.Flatten(),
        "body": nn.Linear(pixels, 32),
        "one": nn.Linear(32, 16),
        "own": layer,
        "two": nn.Linear(16, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


def _gradients(module: nn.Module, weights: dict[str, Tensor], z: Tensor, y: Tensor) -> Tensor:
    """Of the summed loss of a chunk, in float64."""
    inputs = z.double().requires_grad_()
    copies = {n: t.double() if t.is_floating_point() else t.clone() for n, t in weights.items()}
    logits = functional_call(module, copies, (inputs,))
    (dz,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), inputs)
    return dz


def _gradient_error_by_hand(run: Experiment, clients: list[int]) -> float:
    assert isinstance(run.algorithm, FslSage)
    state, models = run.algorithm.state(), run.parts.models
    assert models.auxiliary is not None
    size = run.config.alignment.align_batch_size
    off = true = 0.0
    for client in clients:
        ring = state["alignment"]["rings"][str(client)]
        weights = state["alignment"]["auxiliaries"][str(client)]["model"]["weights"]
        for piece in batch_slices(len(ring["y"]), size):
            z, y = ring["z"][piece], ring["y"][piece]
            dz = _gradients(models.halves.server, state["server"]["weights"], z, y)
            off += float((_gradients(models.auxiliary, weights, z, y) - dz).square().sum())
            true += float(dz.square().sum())
    return off / true


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["cohort_size=2", "algorithm.align_interval=2"],
        ["auxiliary=mlp"],
        [f"model._target_={__name__}.with_batch_statistics", "model.cut=body", "auxiliary=derived"],
    ],
    ids=" ".join,
)
def test_gradient_error_is_the_squared_error_over_the_squared_true_gradients_of_all_samples(
    tiny: Build, overrides: list[str]
) -> None:
    run = tiny(MEASURED, *overrides)
    for t in range(3):
        error = run.run_round(t).gradient_error
        assert error == pytest.approx(_gradient_error_by_hand(run, list(run.parts.cohort_of(t))), rel=1e-4)
        assert error > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["cohort_size=2", "algorithm.align_interval=2", "quant=int8"],
        ["estimator=mlp_regression", "algorithm.warm_start=0"],
        [f"model._target_={__name__}.with_dropout", "model.cut=body", "auxiliary=derived"],
    ],
    ids=" ".join,
)
def test_measuring_the_gradient_error_changes_no_bit_of_the_run(tiny: Build, overrides: list[str]) -> None:
    plain, measured = tiny(*overrides), tiny(MEASURED, *overrides)
    for t in range(2):
        torch.manual_seed(t)
        before = torch.get_rng_state()
        ours, theirs = measured.run_round(t).row(), plain.run_round(t).row()
        assert torch.equal(torch.get_rng_state(), before)
        assert isinstance(ours.pop("gradient_error"), float)
        assert theirs.pop("gradient_error") is None
        assert without_seconds(ours) == without_seconds(theirs)
    expected, found = bits(plain), bits(measured)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "fsl_sage"])
def test_algorithms_without_estimates_report_no_gradient_error(tiny: Build, algorithm: str) -> None:
    assert tiny(MEASURED, f"algorithm={algorithm}").run_round(0).gradient_error is None


def test_rounds_of_a_warm_start_report_no_gradient_error(tiny: Build) -> None:
    run = tiny(MEASURED, "algorithm.warm_start=2")
    assert [run.run_round(t).gradient_error is None for t in range(3)] == [True, True, False]


class _Known:
    """A server whose cut gradients are a factor times the estimates of an auxiliary model."""

    def __init__(self, factor: float, model: nn.Module) -> None:
        self.factor, self.model = factor, model

    def cut_gradients(self, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
        z = z.detach().requires_grad_()
        (dz,) = torch.autograd.grad(F.cross_entropy(self.model(z), y, reduction="sum"), z)
        return self.factor * dz


def _alignment(head: LinearAuxiliary) -> Alignment:
    """One that leaves the auxiliary model as it is."""
    adam = Adam(lr=1e-30, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)
    return Alignment(
        new_auxiliary=lambda: ModelState(head, adam),
        estimator=GradientOfLoss(),
        objective=Classification(3),
        epochs=1,
        batch_size=4,
        max_dataset_size=9,
        seed=0,
    )


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (2.0, 0.25), (-1.0, 4.0), (0.0, inf)])
def test_gradient_error_of_estimates_off_by_a_factor_is_that_worked_out_by_hand(
    factor: float, expected: float
) -> None:
    torch.manual_seed(0)
    head = LinearAuxiliary(smashed_shape=(6,), num_classes=3)
    alignment = _alignment(head)
    server = _Known(factor, head)
    assert alignment.error([0, 1], 0, server) is None
    for client in (0, 1):
        alignment.store(client, torch.randn(9, 6), torch.arange(9) % 3)
    assert alignment.error([0, 1], 0, server) is None  # nobody has aligned
    alignment.align(0, 0, server, initially=dict(head.state_dict()))
    assert alignment.error([0, 1], 0, server) == pytest.approx(expected, rel=1e-6)
    assert alignment.error([1], 0, server) is None


def test_gradient_error_is_nan_where_estimates_and_true_gradients_are_zero() -> None:
    head = LinearAuxiliary(smashed_shape=(6,), num_classes=3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    alignment = _alignment(head)
    alignment.store(0, torch.randn(9, 6), torch.arange(9) % 3)
    alignment.align(0, 0, _Known(0.0, head), initially=dict(head.state_dict()))
    error = alignment.error([0], 0, _Known(0.0, head))
    assert error is not None
    assert isnan(error)
