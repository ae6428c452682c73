"""Weights on their grid, against whole-number arithmetic in numpy."""

import numpy as np
import pytest
import torch

from fedsplit.quant.weight_grid import WeightBits, along_channels, quantize_weights

WIDTHS: tuple[WeightBits, ...] = (16, 8, 4, 2, 1)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("bits", [16, 8])
def test_weights_of_8_and_16_bits_are_the_nearest_multiples_of_the_step_that_fits_the_largest(
    bits: WeightBits,
) -> None:
    weight = drawn(5, 3, 3, 3)
    largest = 2 ** (bits - 1) - 1
    found = quantize_weights(weight, bits)
    for channel, codes, scale in zip(weight.numpy(), found.codes.numpy(), found.scale.numpy(), strict=True):
        step = np.abs(channel.astype(np.float64)).max() / largest
        assert scale == pytest.approx(step, rel=1e-6)
        assert np.abs(codes).max() == largest
        np.testing.assert_array_equal(codes, np.rint(channel / scale))


def test_weights_of_2_and_4_bits_have_the_step_of_least_error_among_those_tried() -> None:
    weight = drawn(4, 200)
    for bits, largest in ((4, 7), (2, 1)):
        values = quantize_weights(weight, bits).values.numpy().astype(np.float64)
        for ours, row in zip(values, weight.numpy().astype(np.float64), strict=True):
            assert len(np.unique(ours)) <= 2 * largest + 1
            steps = np.abs(row).max() / largest * 2.0 ** (-np.arange(17) / 4)
            tried = [np.clip(np.rint(row / step), -largest, largest) * step for step in steps]
            least = min(np.square(each - row).sum() for each in tried)
            assert np.square(ours - row).sum() == pytest.approx(least, rel=1e-5)


def test_weights_of_one_bit_are_the_sign_times_the_mean_absolute_value() -> None:
    weight = drawn(4, 3, 2, 2)
    weight[0, 0, 0, 0] = 0.0
    rows = weight.numpy().reshape(4, -1)
    expected = np.where(rows >= 0, 1, -1) * np.abs(rows).mean(1, keepdims=True)
    np.testing.assert_allclose(quantize_weights(weight, 1).values.numpy().reshape(4, -1), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", WIDTHS)
def test_quantizing_quantized_weights_again_changes_no_code_and_no_scale(bits: WeightBits) -> None:
    once = quantize_weights(drawn(6, 40), bits)
    again = quantize_weights(once.values, bits)
    assert torch.equal(again.codes, once.codes)
    torch.testing.assert_close(again.scale, once.scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_of_channels_multiplied_by_powers_of_two_change_only_in_sign(bits: WeightBits) -> None:
    weight = drawn(6, 5, 3, 3)
    factor = torch.tensor([1.0, -1.0, 0.5, -4.0, 2.0, -0.125])  # powers of two: no other rounding
    once = quantize_weights(weight, bits)
    scaled = quantize_weights(weight * along_channels(factor, weight), bits)
    assert torch.equal(scaled.codes, once.codes * along_channels(factor.sign(), weight))
    torch.testing.assert_close(scaled.scale, once.scale * factor.abs(), rtol=0, atol=0)


@pytest.mark.parametrize("bits", WIDTHS)
def test_quantized_channel_of_zeros_is_zero_or_next_to_it(bits: WeightBits) -> None:
    assert quantize_weights(torch.zeros(2, 9), bits).values.abs().max() <= 2.0**-126
