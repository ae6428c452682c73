from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from fedsplit.models.auxiliary import ExplicitInputGradient, LinearAuxiliary, MlpAuxiliary
from fedsplit.models.derived import DerivedAuxiliary

SHAPES = [(7,), (3, 4, 2), (5, 1, 1)]
CLASSES = 4


def _samples(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(6, *shape, generator=draw, dtype=torch.float64)
    return z, torch.randint(CLASSES, (6,), generator=draw)


def _linear(shape: tuple[int, ...]) -> LinearAuxiliary:
    return LinearAuxiliary(smashed_shape=shape, num_classes=CLASSES).double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_input_gradient_is_that_of_the_summed_cross_entropy(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    head = _linear(shape)
    z, y = _samples(shape)
    if channels_last and z.dim() == 4:
        z = z.contiguous(memory_format=torch.channels_last)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(head(leaf), y, reduction="sum"), leaf)
    found = head.input_gradient(dict(head.named_parameters()), z, y)
    assert found.shape == z.shape
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient_is_differentiable_in_the_weights(shape: tuple[int, ...]) -> None:
    head = _linear(shape)
    z, y = _samples(shape)
    target = torch.ones_like(z)
    parameters = dict(head.named_parameters())
    closed = (head.input_gradient(parameters, z, y) - target).square().sum()
    leaf = z.clone().requires_grad_()
    loss = F.cross_entropy(head(leaf), y, reduction="sum")
    twice = (torch.autograd.grad(loss, leaf, create_graph=True)[0] - target).square().sum()
    for found, expected in zip(
        torch.autograd.grad(closed, list(parameters.values())),
        torch.autograd.grad(twice, list(parameters.values())),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_input_gradient_uses_the_given_weights() -> None:
    head, other = _linear((5,)), _linear((5,))
    z, y = _samples((5,))
    given = dict(other.named_parameters())
    torch.testing.assert_close(
        head.input_gradient(given, z, y), other.input_gradient(given, z, y), rtol=0, atol=0
    )


def test_input_gradient_of_very_large_logits_is_finite() -> None:
    head = _linear((5,))
    z, y = _samples((5,))
    found = head.input_gradient(dict(head.named_parameters()), 1e6 * z, y)
    assert found.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_auxiliary_is_a_linear_layer_of_flattened_smashed_data(shape: tuple[int, ...]) -> None:
    head = _linear(shape)
    z, _ = _samples(shape)
    expected = z.reshape(6, prod(shape)) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(z), expected)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "fc.weight": (CLASSES, prod(shape)),
        "fc.bias": (CLASSES,),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_mlp_auxiliary_has_one_hidden_layer_of_the_width_asked_for(shape: tuple[int, ...]) -> None:
    head = MlpAuxiliary(smashed_shape=shape, num_classes=CLASSES, hidden=9).double()
    z, _ = _samples(shape)
    weights = dict(head.named_parameters())
    assert weights["fc1.weight"].shape == (9, prod(shape))
    hidden = (z.reshape(6, -1) @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp_min(0)
    torch.testing.assert_close(head(z), hidden @ weights["fc2.weight"].T + weights["fc2.bias"])
    assert torch.equal(functional_call(head, weights, (z,)), head(z))


def test_explicit_input_gradient_is_offered_by_the_linear_auxiliary_alone() -> None:
    sizes = {"smashed_shape": (3,), "num_classes": 2}
    assert isinstance(LinearAuxiliary(**sizes), ExplicitInputGradient)
    assert not isinstance(MlpAuxiliary(**sizes, hidden=4), ExplicitInputGradient)
    assert not isinstance(nn.Linear(3, 2), ExplicitInputGradient)


def test_derived_auxiliary_stage_is_as_wide_as_its_widest_convolution() -> None:
    convolutions = [nn.Conv2d(4, 16, 1), nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(64, 32, 1)]
    server = fx.symbolic_trace(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32 * 36, CLASSES)))
    derived = DerivedAuxiliary(
        smashed_shape=(4, 6, 6), num_classes=CLASSES, server=server, crossing=((4, 6, 6),), width=0.5
    )
    assert [layer.out_channels for layer in derived.modules() if isinstance(layer, nn.Conv2d)] == [32]
    assert derived(torch.randn(2, 4, 6, 6)).shape == (2, CLASSES)
