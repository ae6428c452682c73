from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.estimators.estimator import Chunk, FitStep, GradientEstimator
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.estimators.second_derivative.layers import Convolution, ConvolutionOf2x2
from fedsplit.estimators.second_derivative.operation import UnsupportedError
from fedsplit.estimators.second_derivative.sweeps import Sweeps
from fedsplit.models.auxiliary import LinearAuxiliary, MlpAuxiliary
from fedsplit.models.zoo.resnet import ResNetAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Adam

CLASSES, IMAGES = 5, (8, 4, 4)
OBJECTIVE = Classification(CLASSES)
ADAM = Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)


class _Twice(GradientOfLoss):
    """Differentiates twice whatever the model."""

    def error_gradients(
        self, model: ModelState, objective: Objective, chunk: Chunk, *, seed: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        leaf = chunk.z.clone().requires_grad_()
        logits = model.forward(leaf, seed=seed, buffers=model.frozen_buffers())
        loss = F.cross_entropy(logits, chunk.y, reduction="sum")
        (estimate,) = torch.autograd.grad(loss, leaf, create_graph=True)
        error = (estimate - chunk.dz).square().sum()
        return error.detach(), torch.autograd.grad(error, list(model.parameters.values()))


class _Block(nn.Module):
    """Inputs used twice, a residual sum, ReLU in place and as a function, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.relu, self.pool, self.fc = (
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Linear(8, CLASSES),
        )

    def forward(self, z: Tensor) -> Tensor:
        once = self.conv(z)
        once += z
        once = F.relu(once)
        twice = self.relu(self.norm(self.conv(once)))
        logits: Tensor = self.fc(torch.flatten(self.pool(twice + once), 1))
        return logits


def _every_layer() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 6, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Dropout(0.3),
        nn.Conv2d(6, 7, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        nn.Identity(),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.ReLU(),
        nn.Conv2d(7, 4, 1, bias=False),
        nn.AvgPool2d((2, 2)),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 9, bias=False),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(9, CLASSES),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: LinearAuxiliary(smashed_shape=IMAGES, num_classes=CLASSES),
    "mlp": lambda: MlpAuxiliary(smashed_shape=IMAGES, num_classes=CLASSES, hidden=16),
    "resnet": lambda: ResNetAuxiliary(smashed_shape=IMAGES, num_classes=CLASSES),
    "block": _Block,
    "every layer": _every_layer,
}


def _model_state(name: str, dtype: torch.dtype) -> ModelState:
    torch.manual_seed(0)
    module = MODELS[name]().to(dtype)
    for parameter in module.parameters():  # weights and offsets of normalisation too
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return ModelState(module, ADAM)


def _chunk(dtype: torch.dtype, samples: int = 24, shape: tuple[int, ...] = IMAGES) -> Chunk:
    draw = torch.Generator().manual_seed(1)
    z, dz = (torch.randn(samples, *shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    y = torch.randint(CLASSES, (samples,), generator=draw)
    return Chunk(compute_format(z), y, compute_format(0.1 * dz))


def _relative_differences(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("name", MODELS)
def test_gradient_of_the_estimation_error_is_that_of_differentiating_twice(name: str) -> None:
    chunk, model = _chunk(torch.float64), _model_state(name, torch.float64)
    before = {key: buffer.clone() for key, buffer in model.buffers.items()}
    error, gradients = GradientOfLoss().error_gradients(model, OBJECTIVE, chunk, seed=4)
    expected_error, expected = _Twice().error_gradients(model, OBJECTIVE, chunk, seed=4)
    torch.testing.assert_close(error, expected_error, rtol=1e-12, atol=0)
    assert max(_relative_differences(list(gradients), list(expected))) < 1e-12
    assert not any(gradient.requires_grad for gradient in gradients)
    assert all(torch.equal(model.buffers[key], buffer) for key, buffer in before.items())


@pytest.mark.parametrize(
    ("name", "bound"), [("linear", 1e-6), ("mlp", 1e-6), ("resnet", 1e-5), ("block", 1e-5)]
)
def test_ten_fit_steps_in_float32_end_at_the_weights_of_differentiating_twice(
    name: str, bound: float
) -> None:
    ends = []
    for estimator in (GradientOfLoss(), _Twice()):
        model = _model_state(name, torch.float32)
        estimator.fit(model, OBJECTIVE, [_chunk(torch.float32)], [FitStep(0, seed) for seed in range(10)])
        ends.append([parameter.detach() for parameter in model.parameters.values()])
    assert max(_relative_differences(*ends)) < bound


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"linear"}))
def test_supported_models_are_not_differentiated_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientEstimator, "error_gradients", lambda *_, **__: pytest.fail("fell back"))
    GradientOfLoss().error_gradients(
        _model_state(name, torch.float32), OBJECTIVE, _chunk(torch.float32), seed=0
    )


class _Forked(nn.Module):
    """Overwrites a value that is used once more."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z.flatten(1))
        return x + F.relu(x, inplace=True)


class _Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(128, CLASSES), nn.Linear(128, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = z.flatten(1)
        return self.fc(x) + self.other(x)


class _Branching(nn.Module):
    """What torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.fc(z.flatten(1))
        return logits if logits.sum() > 0 else 2 * logits


class _Mine(nn.Linear):
    """A subclass, which computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


def _tied() -> nn.Module:
    first, second = nn.Linear(128, 128), nn.Linear(128, 128)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(128, CLASSES))


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES))
    model[1].register_forward_hook(lambda module, inputs, output: 3 * output)
    return model


UNSUPPORTED: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.GELU(), nn.Linear(9, CLASSES)),
    lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), nn.Flatten(), nn.Linear(128, CLASSES)),
    lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, CLASSES)),
    lambda: nn.Sequential(nn.Flatten(), _Mine(128, CLASSES)),
    lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8).eval(), nn.Flatten(), nn.Linear(32, CLASSES)),
    _Forked,
    _Broadcast,
    _Branching,
    _hooked,
]


@pytest.mark.parametrize("make", UNSUPPORTED)
def test_unsupported_models_are_differentiated_twice(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, chunk = ModelState(make().double()), _chunk(torch.float64)
    with pytest.raises(UnsupportedError):
        Sweeps(model.module).error_gradients(model.parameters, chunk)
    found, expected = (
        each.error_gradients(model, OBJECTIVE, chunk, seed=4) for each in (GradientOfLoss(), _Twice())
    )
    for one, other in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_tied_weights_and_weights_of_no_layer_are_unsupported() -> None:
    unused = nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES))
    unused.extra = nn.Parameter(torch.zeros(2))
    for model in (_tied(), unused):
        with pytest.raises(UnsupportedError, match="weights"):
            Sweeps(model)


@pytest.mark.parametrize("bias", [False, True])
def test_convolution_of_2x2_images_computes_what_a_convolution_computes(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=bias).double()
    x, dx, g, dg = (compute_format(torch.randn(6, c, 2, 2).double()) for c in (3, 3, 4, 4))
    assert ConvolutionOf2x2.fits(layer, x)
    with torch.no_grad():
        fast, plain = (
            kind(dict(layer.named_parameters()), layer) for kind in (ConvolutionOf2x2, Convolution)
        )
        for each in ("value", "pull", "push"):
            given = {"value": x, "pull": g, "push": dx}[each]
            torch.testing.assert_close(
                getattr(fast, each)(given), getattr(plain, each)(given), rtol=0, atol=1e-13
            )
        changes = [use.pull_change(dg, weights_only=False) for use in (fast, plain)]
        torch.testing.assert_close(*changes, rtol=0, atol=1e-13)
    torch.testing.assert_close(fast.changes, plain.changes, rtol=0, atol=1e-13)
    assert set(fast.changes) == {"weight", "bias"} if bias else {"weight"}


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"stride": 2}, 2),
        ({"padding": 0}, 2),
        ({"dilation": 2, "padding": 1}, 2),
        ({"groups": 2}, 2),
        ({}, 3),
    ],
)
def test_convolution_of_other_settings_or_image_sizes_does_not_fit_the_2x2_form(
    settings: dict[str, int], side: int
) -> None:
    layer = nn.Conv2d(4, 4, 3, **{"padding": 1, **settings})
    assert not ConvolutionOf2x2.fits(layer, torch.zeros(1, 4, side, side))


def test_batch_norm_of_one_value_per_channel_is_refused_as_by_torch() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.BatchNorm1d(9), nn.Linear(9, CLASSES))
    with pytest.raises(ValueError, match="more than"):
        GradientOfLoss().error_gradients(
            ModelState(module), OBJECTIVE, _chunk(torch.float32, samples=1), seed=0
        )


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_closed_form_error_is_accurate_where_the_estimates_are_close(scale: float) -> None:
    """Of true gradients that are the estimates but for a hundredth: where expanding the square cancels."""
    model, chunk = _model_state("linear", torch.float32), _chunk(torch.float32, samples=200)
    estimate = GradientOfLoss().estimate(model, OBJECTIVE, scale * chunk.z, chunk.y, seed=0)
    noise = torch.randn(estimate.shape, generator=torch.Generator().manual_seed(2))
    close = Chunk(scale * chunk.z, chunk.y, estimate + 0.01 * estimate.norm() / noise.norm() * noise)
    found, _ = GradientOfLoss().error_gradients(model, OBJECTIVE, close, seed=0)
    torch.testing.assert_close(found, (estimate - close.dz).square().sum(), rtol=0.01, atol=0)
