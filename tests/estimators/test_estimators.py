from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState
from fedsplit.estimators.estimator import Chunk, FitStep, GradientEstimator
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.estimators.linear_regression import LinearRegression
from fedsplit.estimators.mlp_regression import MlpRegression
from fedsplit.models.auxiliary import LinearAuxiliary, MlpAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.optim.optimizers import Adam

SHAPE, CLASSES = (2, 3, 1), 4
SIZES: dict[str, Any] = {"smashed_shape": SHAPE, "num_classes": CLASSES}
OBJECTIVE = Classification(CLASSES)
ESTIMATED: dict[str, Any] = {"smashed_shape": SHAPE, "objective": OBJECTIVE}
ADAM = Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)


def _steps(*chunks: int) -> list[FitStep]:
    return [FitStep(chunk, seed=0) for chunk in chunks]


class _WithoutClosedForm(nn.Module):
    """The same linear layer, but silent about the gradient of its loss."""

    def __init__(self, linear: LinearAuxiliary) -> None:
        super().__init__()
        self.fc = linear.fc

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.fc(z.flatten(1))
        return logits


class _Normalised(nn.Module):
    """A head whose batch normalisation has statistics to move."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 1)
        self.norm = nn.BatchNorm2d(5)
        self.fc = nn.Linear(15, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.norm(self.conv(z))).flatten(1))
        return logits


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _chunks(count: int = 3, samples: int = 8, shape: tuple[int, ...] = SHAPE) -> list[Chunk]:
    """True gradients of a server model that is not linear."""
    torch.manual_seed(5)
    server = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 6), nn.Tanh(), nn.Linear(6, CLASSES))
    server = server.double()
    chunks = []
    for number in range(count):
        draw = _seeded(number)
        z = torch.randn(samples, *shape, generator=draw, dtype=torch.float64).requires_grad_()
        y = torch.randint(CLASSES, (samples,), generator=draw)
        (dz,) = torch.autograd.grad(F.cross_entropy(server(z), y, reduction="sum"), z)
        chunks.append(Chunk(z.detach(), y, dz))
    return chunks


def _state(module: nn.Module, optimizer: Adam | None = ADAM) -> ModelState:
    return ModelState(module.double(), optimizer)


def _head(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    if kind is _Normalised:
        return _Normalised()
    return LinearAuxiliary(**SIZES) if kind is LinearAuxiliary else MlpAuxiliary(**SIZES, hidden=16)


def _error(estimator: GradientEstimator, model: ModelState, chunks: list[Chunk]) -> float:
    return sum(
        float((estimator.estimate(model, OBJECTIVE, c.z, c.y, seed=0) - c.dz).square().sum()) for c in chunks
    )


@pytest.mark.parametrize("differentiable", [False, True])
def test_closed_form_gradient_of_a_linear_head_is_that_of_autograd(differentiable: bool) -> None:
    linear = LinearAuxiliary(**SIZES).double()
    closed, general = _state(linear), _state(_WithoutClosedForm(linear))
    (chunk,) = _chunks(1)
    found, expected = (
        GradientOfLoss().estimate(model, OBJECTIVE, chunk.z, chunk.y, seed=0, differentiable=differentiable)
        for model in (closed, general)
    )
    assert found.shape == chunk.z.shape
    assert found.requires_grad is expected.requires_grad is differentiable
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_fit_by_closed_form_ends_at_the_weights_of_differentiating_twice() -> None:
    linear = LinearAuxiliary(**SIZES).double()
    closed, general = _state(linear), _state(_WithoutClosedForm(linear))
    for model in (closed, general):
        GradientOfLoss().fit(model, OBJECTIVE, _chunks(), _steps(0, 1, 2, 2, 0, 1))
    for name, value in closed.weights().items():
        torch.testing.assert_close(general.weights()[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [LinearAuxiliary, MlpAuxiliary, _Normalised])
def test_gradient_of_loss_estimates_the_gradient_of_the_summed_loss_at_smashed_data(
    kind: type[nn.Module],
) -> None:
    head = _head(kind).double()
    (chunk,) = _chunks(1)
    z = chunk.z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(head(z), chunk.y, reduction="sum"), z)
    found = GradientOfLoss().estimate(_state(head), OBJECTIVE, chunk.z, chunk.y, seed=0)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
    assert not found.requires_grad


@pytest.mark.parametrize("differentiable", [False, True])
def test_estimate_and_fit_leave_batch_norm_statistics_unchanged(differentiable: bool) -> None:
    head = _head(_Normalised).double()
    model, estimator, chunks = _state(head), GradientOfLoss(), _chunks()
    buffers = {name: buffer.clone() for name, buffer in model.buffers.items()}
    parameters = {name: parameter.detach().clone() for name, parameter in model.parameters.items()}
    estimator.estimate(model, OBJECTIVE, chunks[0].z, chunks[0].y, seed=0, differentiable=differentiable)
    assert all(torch.equal(model.parameters[name], value) for name, value in parameters.items())
    estimator.fit(model, OBJECTIVE, chunks, _steps(0, 1, 2))
    assert set(buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert all(torch.equal(model.buffers[name], value) for name, value in buffers.items())
    assert all(torch.equal(b, head.get_buffer(name)) for name, b in buffers.items())
    assert not torch.equal(model.parameters["conv.weight"], parameters["conv.weight"])


@pytest.mark.parametrize("kind", [LinearAuxiliary, MlpAuxiliary, _Normalised])
def test_fit_of_gradient_of_loss_reduces_its_error(kind: type[nn.Module]) -> None:
    model, estimator, chunks = _state(_head(kind)), GradientOfLoss(), _chunks()
    before = _error(estimator, model, chunks)
    estimator.fit(model, OBJECTIVE, chunks, _steps(0, 1, 2) * 60)
    assert _error(estimator, model, chunks) < 0.6 * before


def test_fit_step_is_an_optimizer_step_on_the_sum_of_squared_differences() -> None:
    model, chunks = _state(_head(LinearAuxiliary)), _chunks()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.parameters.items()}
    built = ADAM.build(list(parameters.values()))
    for position in (2, 0):
        chunk = chunks[position]
        logits = F.linear(chunk.z.flatten(1), parameters["fc.weight"], parameters["fc.bias"])
        surplus = torch.softmax(logits, 1) - F.one_hot(chunk.y, CLASSES)
        built.zero_grad()
        (surplus @ parameters["fc.weight"] - chunk.dz.flatten(1)).square().sum().backward()
        built.step()
    GradientOfLoss().fit(model, OBJECTIVE, chunks, _steps(2, 0))
    for name, value in parameters.items():
        torch.testing.assert_close(model.parameters[name], value, rtol=1e-12, atol=1e-14)


def test_gradient_of_loss_uses_the_configured_auxiliary_model_and_regressions_their_own() -> None:
    auxiliary = _head(MlpAuxiliary)
    assert GradientOfLoss().model(auxiliary, **ESTIMATED) is auxiliary
    for estimator in (LinearRegression(ridge=0.1), MlpRegression(hidden=5)):
        assert estimator.model(auxiliary, **ESTIMATED) is not auxiliary
        assert not estimator.trains_on_loss
    assert GradientOfLoss.trains_on_loss


def _ridge_by_least_squares(chunks: list[Chunk], ridge: float) -> np.ndarray:
    """Ridge regression as ordinary least squares on data augmented with `sqrt(penalty) I` rows."""
    x = np.concatenate(
        [np.concatenate([c.z.flatten(1).numpy(), np.eye(CLASSES)[c.y.numpy()]], 1) for c in chunks]
    )
    target = np.concatenate([c.dz.flatten(1).numpy() for c in chunks])
    penalty = ridge * np.mean((x**2).sum(1))
    rows = np.concatenate([x, np.sqrt(penalty) * np.eye(x.shape[1])])
    solution = np.linalg.lstsq(rows, np.concatenate([target, np.zeros((x.shape[1], target.shape[1]))]))
    return np.asarray(solution[0])


@pytest.mark.parametrize("samples", [1, 3, 8, 30])  # 3 chunks of these; 10 features
@pytest.mark.parametrize("ridge", [1e-4, 0.5])
def test_linear_regression_fits_the_weights_of_ridge_regression(samples: int, ridge: float) -> None:
    estimator, chunks = LinearRegression(ridge=ridge), _chunks(samples=samples)
    model = _state(estimator.model(nn.Identity(), **ESTIMATED), None)
    estimator.fit(model, OBJECTIVE, chunks, [])
    expected = _ridge_by_least_squares(chunks, ridge)
    np.testing.assert_allclose(model.parameters["weight"].detach().numpy(), expected, rtol=1e-6, atol=1e-9)
    z, y = chunks[0].z, chunks[0].y
    features = np.concatenate([z.flatten(1).numpy(), np.eye(CLASSES)[y.numpy()]], 1)
    np.testing.assert_allclose(
        estimator.estimate(model, OBJECTIVE, z, y, seed=0).flatten(1).numpy(),
        features @ expected,
        rtol=1e-6,
        atol=1e-9,
    )


def test_linear_regression_recovers_linear_gradients() -> None:
    draw = _seeded()
    map_ = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    offset = torch.randn(CLASSES, 6, generator=draw, dtype=torch.float64)
    chunks = [Chunk(c.z, c.y, (c.z.flatten(1) @ map_ + offset[c.y]).view(c.z.shape)) for c in _chunks()]
    estimator = LinearRegression(ridge=1e-12)
    model = _state(estimator.model(nn.Identity(), **ESTIMATED), None)
    assert _error(estimator, model, chunks) > 1
    estimator.fit(model, OBJECTIVE, chunks, [])
    assert _error(estimator, model, chunks) < 1e-12


def test_mlp_regression_fits_nonlinear_gradients_better_than_linear_regression() -> None:
    torch.manual_seed(0)
    chunks = [Chunk(c.z, c.y, c.z.abs() - 0.8) for c in _chunks()]
    linear, estimator = LinearRegression(ridge=1e-6), MlpRegression(hidden=32)
    straight = _state(linear.model(nn.Identity(), **ESTIMATED), None)
    linear.fit(straight, OBJECTIVE, chunks, [])
    model = _state(estimator.model(nn.Identity(), **ESTIMATED))
    before = _error(estimator, model, chunks)
    estimator.fit(model, OBJECTIVE, chunks, _steps(0, 1, 2) * 150)
    assert _error(estimator, model, chunks) < 0.05 * before
    assert _error(estimator, model, chunks) < 0.5 * _error(linear, straight, chunks)


@pytest.mark.parametrize("estimator", [LinearRegression(ridge=0.1), MlpRegression(hidden=5)])
@pytest.mark.parametrize("differentiable", [False, True])
def test_regression_estimates_have_the_shape_of_smashed_data(
    estimator: GradientEstimator, differentiable: bool
) -> None:
    model = _state(estimator.model(nn.Identity(), **ESTIMATED))
    (chunk,) = _chunks(1)
    estimate = estimator.estimate(model, OBJECTIVE, chunk.z, chunk.y, seed=0, differentiable=differentiable)
    assert estimate.shape == chunk.z.shape
    assert estimate.requires_grad is differentiable
    module_input = torch.cat([chunk.z.flatten(1), F.one_hot(chunk.y, CLASSES)], 1)
    torch.testing.assert_close(estimate.flatten(1), model.module(module_input))


def _with_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, CLASSES)).double()


@pytest.mark.parametrize("differentiable", [False, True])
def test_estimate_with_dropout_follows_from_the_seed_alone(differentiable: bool) -> None:
    model, (chunk,) = _state(_with_dropout()), _chunks(1)

    def estimate(seed: int, around: int) -> Tensor:
        torch.manual_seed(around)
        found = GradientOfLoss().estimate(
            model, OBJECTIVE, chunk.z, chunk.y, seed=seed, differentiable=differentiable
        )
        return found.detach()

    assert torch.equal(estimate(1, around=8), estimate(1, around=9))
    assert not torch.equal(estimate(1, around=8), estimate(2, around=8))


def test_fit_with_dropout_follows_from_the_seeds_of_its_steps() -> None:
    def fitted(*seeds: int) -> Tensor:
        model = _state(_with_dropout())
        GradientOfLoss().fit(
            model, OBJECTIVE, _chunks(), [FitStep(i % 3, seed) for i, seed in enumerate(seeds)]
        )
        return model.weights()["2.weight"]

    first = fitted(1, 2, 3, 4)
    torch.manual_seed(7)
    assert torch.equal(fitted(1, 2, 3, 4), first)
    assert not torch.equal(fitted(1, 2, 3, 5), first)
    assert not torch.equal(fitted(2, 1, 3, 4), first)


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize(
    "estimator", [GradientOfLoss(), LinearRegression(ridge=0.1), MlpRegression(hidden=5)]
)
def test_estimate_without_dropout_requires_a_seed_but_does_not_depend_on_its_value(
    estimator: GradientEstimator, differentiable: bool
) -> None:
    model, (chunk,) = _state(estimator.model(_head(MlpAuxiliary), **ESTIMATED)), _chunks(1)
    one, other = (
        estimator.estimate(model, OBJECTIVE, chunk.z, chunk.y, seed=seed, differentiable=differentiable)
        for seed in (1, 2)
    )
    assert torch.equal(one, other)
    with pytest.raises(TypeError, match="seed"):
        estimator.estimate(model, OBJECTIVE, chunk.z, chunk.y, differentiable=differentiable)  # type: ignore[call-arg]


def test_fit_takes_only_the_steps_given() -> None:
    model, chunks = _state(_head(LinearAuxiliary)), _chunks()
    before = model.weights()
    GradientOfLoss().fit(model, OBJECTIVE, chunks, [])
    assert all(torch.equal(value, before[name]) for name, value in model.weights().items())
    alone = _state(_head(LinearAuxiliary))
    GradientOfLoss().fit(model, OBJECTIVE, chunks, _steps(1, 1))
    GradientOfLoss().fit(alone, OBJECTIVE, chunks[1:2], _steps(0, 0))
    assert all(torch.equal(value, alone.weights()[name]) for name, value in model.weights().items())
