"""Layers that round: their values, their gradients and the ranges they keep."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsplit.models.rounding.fake_quantization import (
    FakeQuantizedActivations,
    fake_quantized_weight,
    with_fake_quantized_weights,
)
from fedsplit.quant.weight_grid import WeightBits, quantize_weights
from tests.quant.test_weight_grid import WIDTHS, drawn


@pytest.mark.parametrize("bits", WIDTHS)
def test_fake_quantized_weights_take_the_gradient_of_their_rounded_values(bits: WeightBits) -> None:
    layer = nn.Conv2d(2, 3, 3)
    x, weight, bias = drawn(4, 2, 6, 6), layer.weight, layer.bias
    rounded = quantize_weights(weight.detach(), bits).values.requires_grad_()
    expected = F.conv2d(x, rounded, bias)
    gradient = torch.autograd.grad(expected.square().sum(), rounded)
    output = with_fake_quantized_weights(layer, bits)(x)
    assert torch.equal(output, expected)
    assert torch.equal(torch.autograd.grad(output.square().sum(), weight)[0], gradient[0])
    assert torch.equal(fake_quantized_weight(weight, bits), rounded)


def test_fake_quantized_linear_layer_computes_with_rounded_weights() -> None:
    layer, x = nn.Linear(7, 3), drawn(4, 7)
    expected = x @ quantize_weights(layer.weight.detach(), 4).values.T + layer.bias
    torch.testing.assert_close(with_fake_quantized_weights(layer, 4)(x), expected)
    assert list(layer.state_dict()) == ["weight", "bias"]


def activations_with_range(low: float, high: float) -> FakeQuantizedActivations:
    made = FakeQuantizedActivations().eval()
    made.load_state_dict(
        {
            "running_min": torch.tensor(low),
            "running_max": torch.tensor(high),
            "num_batches_tracked": torch.tensor(1),
        }
    )
    return made


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (0.5, 2.0), (-2.0, -0.5)])
def test_fake_quantized_activations_are_8_bit_codes_with_zero_gradient_beyond_the_range(
    low: float, high: float
) -> None:
    x = (drawn(1000) * 2).requires_grad_()
    rounded = activations_with_range(low, high)(x)
    step = np.float32((max(high, 0) - min(low, 0)) / 255)
    zero = np.rint(-min(low, 0) / step)
    codes = np.rint(x.detach().numpy() / step) + zero
    expected = (np.clip(codes, 0, 255) - zero) * step
    np.testing.assert_allclose(rounded.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad((rounded * drawn(1000)).sum(), x)
    inside = (codes >= 0) & (codes <= 255)
    np.testing.assert_array_equal(gradient.numpy(), np.where(inside, drawn(1000).numpy(), 0))
    assert 0 < inside.mean() < 1
    assert activations_with_range(low, high)(torch.zeros(3)).eq(0).all()


def test_activation_range_is_the_mean_over_batches_and_later_a_moving_mean() -> None:
    layer = FakeQuantizedActivations()
    batches = [drawn(8) * scale for scale in (1.0, 3.0, 0.5)]
    for batch in batches:
        layer(batch)
    for kept, seen in ((layer.running_min, torch.amin), (layer.running_max, torch.amax)):
        assert kept.item() == pytest.approx(np.mean([seen(batch).item() for batch in batches]), rel=1e-6)
    layer.num_batches_tracked.fill_(500)
    before = layer.running_max.item()
    layer(torch.tensor([0.0, 50.0]))
    assert layer.running_max.item() == pytest.approx(0.99 * before + 0.01 * 50, rel=1e-6)


def test_activation_ranges_stay_unchanged_in_evaluation_and_without_a_range_nothing_is_rounded() -> None:
    layer, x = FakeQuantizedActivations().eval(), drawn(50)
    assert torch.equal(layer(x), x)
    assert layer.num_batches_tracked == 0
    layer.train()(x)
    kept = {name: each.clone() for name, each in layer.state_dict().items()}
    layer.eval()(10 * x)
    assert all(torch.equal(kept[name], each) for name, each in layer.state_dict().items())
