from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.quant.codec import Codec
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.affine_rows import RangeName
from fedsplit.quant.codecs.float8 import Float8
from fedsplit.quant.codecs.sign import Sign
from tests.cases import long_but
from tests.oracles.codecs import Floats, floats_in, quantized, sqnr

DRAWS = 2000


def _gaussian(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(count)).to(torch.float32)


def _heavy_tailed(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, count)).to(torch.float32)


def _sqnr(codec: Codec, x: Tensor) -> float:
    return sqnr(x.double().numpy(), codec.simulate(x).decoded.double().numpy())


def _per_tensor(bits: int, **options: Any) -> Codec:
    return affine(bits=bits, granularity="tensor", **options)


def _mean_of_draws(codec: Codec, x: Tensor) -> Floats:
    total = torch.zeros(x.shape, dtype=torch.float64)
    for seed in range(DRAWS):
        total += codec.simulate(x, seed=seed).decoded
    mean: Floats = (total / DRAWS).numpy()
    return mean


def _standard_errors(mean: Floats, x: Tensor, step: float) -> tuple[float, float]:
    """How far off the mean of draws is: the furthest value, and all together; in their standard errors."""
    off = mean - x.double().numpy()
    of_one = step / 2 / DRAWS**0.5  # at most, of a draw between two codes
    return float(np.abs(off).max() / of_one), float(abs(off.mean()) / (of_one / len(off) ** 0.5))


def _on_a_grid(bits: int, zero: int) -> Tensor:
    """Values of a range whose smallest and largest are codes, so that none lies beyond the last one."""
    low, high = -zero * 0.125, ((1 << bits) - 1 - zero) * 0.125
    drawn = low + (high - low) * torch.rand(60, generator=torch.Generator().manual_seed(bits))
    return torch.cat([drawn, torch.tensor([low, high, 0.0])])


@pytest.mark.parametrize("bits", long_but([1], [1, 2, 3, 4, 8]))
def test_stochastic_rounding_is_unbiased_in_symmetric_ranges(bits: int) -> None:
    x = _gaussian(60, seed=bits)
    step = 2 * float(x.abs().max()) / ((1 << bits) - (2 if bits > 1 else 1))
    stochastic = _mean_of_draws(_per_tensor(bits, symmetric=True, rounding="stochastic"), x)
    assert max(_standard_errors(stochastic, x, step)) < 4.5
    nearest = _mean_of_draws(_per_tensor(bits, symmetric=True), x)
    assert _standard_errors(nearest, x, step)[0] > 20  # so the check can fail


@pytest.mark.parametrize(
    ("bits", "zero"),
    long_but([(3, 0)], [(1, 0), (1, 1), (2, 1), (3, 0), (4, 3), (8, 128), (8, 255)]),
)
def test_stochastic_rounding_is_unbiased_where_both_ends_of_the_range_are_codes(bits: int, zero: int) -> None:
    x = _on_a_grid(bits, zero)
    stochastic = _mean_of_draws(_per_tensor(bits, rounding="stochastic"), x)
    assert max(_standard_errors(stochastic, x, 0.125)) < 4.5
    assert _standard_errors(_mean_of_draws(_per_tensor(bits), x), x, 0.125)[0] > 20


@pytest.mark.parametrize(
    ("bits", "low", "high"),
    long_but(
        [(2, -0.7, 0.5), (4, -0.05, 1.0)],
        [
            (bits, *ends)
            for bits in (2, 4)
            for ends in ((-0.4, 1.0), (-1.0, 0.4), (-0.7, 0.5), (-0.05, 1.0), (0.0, 1.0))
        ],
    ),
)
def test_stochastic_rounding_is_unbiased_up_to_the_ends_of_any_range(
    bits: int, low: float, high: float
) -> None:
    """Also where a zero point is whole only after it was rounded, which moves the codes against the range."""
    x = torch.cat([_gaussian(60, seed=bits).clamp(low, high), torch.tensor([low, high])])
    codec = _per_tensor(bits, rounding="stochastic")
    step = float(floats_in(codec.encode(x).payload[:2], "bfloat16")[0])
    assert step <= 1.01 * (high - low) / ((1 << bits) - 2)  # one code at most is lost to that
    assert max(_standard_errors(_mean_of_draws(codec, x), x, step)) < 4.5


def test_stochastic_rounding_draws_differently_for_each_row() -> None:
    codec = affine(bits=4, granularity="channel", channel_dim=0, rounding="stochastic")
    decoded = codec.simulate(_gaussian(50).expand(20, 50), seed=1).decoded
    assert len({tuple(row) for row in decoded.tolist()}) == 20


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_stochastic_rounding_goes_to_the_next_code_below_or_above(bits: int) -> None:
    x = _gaussian(3000, seed=bits)
    codec = _per_tensor(bits, symmetric=True, rounding="stochastic", scale_type="float32")
    step = 2 * float(x.abs().max()) / ((1 << bits) - (2 if bits > 1 else 1))
    decoded = torch.stack([codec.simulate(x, seed=seed).decoded for seed in range(3)])
    assert ((decoded - x).abs() < step * 1.01).all()
    assert (decoded > x).any()
    assert (decoded < x).any()


def _with_zeros(ends: tuple[float, float]) -> Tensor:
    return torch.cat([torch.linspace(*ends, 100), torch.zeros(20_000)])


WITH_ZEROS = [_with_zeros(ends) for ends in ((-1.0, 2.0), (-3.0, 0.1), (0.5, 7.0), (-7.0, -0.5))]


@pytest.mark.cover(2)
@pytest.mark.parametrize("range_name", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(1, 17))
def test_zeros_stay_zeros_with_rounding_to_nearest(bits: int, symmetric: bool, range_name: RangeName) -> None:
    codec = _per_tensor(bits, symmetric=symmetric, range=range_name)
    if (bits, symmetric) != (1, True):  # which has two values, neither of them 0
        assert not any(codec.simulate(x).decoded[100:].any() for x in WITH_ZEROS)


@pytest.mark.parametrize(("bits", "symmetric"), [(1, False), (2, False), (4, True), (8, True), (8, False)])
def test_zeros_stay_zeros_with_stochastic_rounding(bits: int, symmetric: bool) -> None:
    codec = _per_tensor(bits, symmetric=symmetric, rounding="stochastic")
    for seed in range(20):
        assert not any(codec.simulate(x, seed=seed).decoded[100:].any() for x in WITH_ZEROS)


@pytest.mark.parametrize("bits", [12, 16])
def test_zeros_stay_zeros_with_stochastic_rounding_to_many_bits(bits: int) -> None:
    codec = _per_tensor(bits, rounding="stochastic")
    for seed in range(3):
        assert not any(codec.simulate(x, seed=seed).decoded[100:].any() for x in WITH_ZEROS)


def test_symmetric_range_of_one_bit_decodes_to_either_end_of_the_range() -> None:
    x = torch.tensor([-0.5, -0.1, 0.0, 0.2, 0.25])
    decoded = _per_tensor(1, symmetric=True).simulate(x).decoded
    assert decoded.tolist() == [-0.5, -0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 100.0])
def test_range_percentile_holds_that_percentage_of_the_values(percentile: float) -> None:
    x = _gaussian(10_001)
    decoded = _per_tensor(12, range="percentile", percentile=percentile).simulate(x).decoded
    ends = np.quantile(x.numpy(), [(1 - percentile / 100) / 2, (1 + percentile / 100) / 2])
    step = (ends[1] - ends[0]) / 4095
    assert [float(decoded.min()), float(decoded.max())] == pytest.approx(ends, abs=0.01 * (ends[1] - ends[0]))
    inside = (x.double() >= ends[0]) & (x.double() <= ends[1])
    assert ((decoded - x).abs() <= 0.52 * step + 1e-6)[inside].all()


def test_range_percentile_is_taken_of_each_row_by_itself() -> None:
    x = torch.stack([_gaussian(1001), 100 * _gaussian(1001)])
    codec = affine(bits=8, granularity="channel", channel_dim=0, range="percentile", percentile=99.0)
    small, large = codec.simulate(x).decoded
    assert float(large.max() / small.max()) == pytest.approx(100, rel=0.02)


@pytest.mark.cover(2)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("draw", [_gaussian, _heavy_tailed])
def test_range_mse_is_the_best_of_the_full_range_and_its_fractions(
    draw: Any, bits: int, symmetric: bool
) -> None:
    for seed, count in enumerate((50, 777, 2048)):
        x = draw(count, seed)
        values = x.double().numpy()
        fractions = [2 ** (-step / 4) for step in range(17)]
        best = max(
            sqnr(values, quantized(values, bits, symmetric, "float32", shrink).decoded)
            for shrink in fractions
        )
        codec = _per_tensor(bits, symmetric=symmetric, range="mse", scale_type="float32")
        assert _sqnr(codec, x) == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("count", [100, 2048, 5000, 30_000])
@pytest.mark.parametrize("draw", [_gaussian, _heavy_tailed])
def test_range_mse_is_not_worse_than_the_full_range(draw: Any, count: int, symmetric: bool) -> None:
    for bits in (1, 2, 4, 6, 8, 12):
        least, full = (_per_tensor(bits, symmetric=symmetric, range=name) for name in ("mse", "minmax"))
        for seed in range(3):
            x = draw(count, seed)
            assert _sqnr(least, x) >= _sqnr(full, x) - 0.05, f"{bits} bits"


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("count", [10_000, 100_000])
def test_range_mse_gains_four_decibels_over_the_full_range_with_two_bits(count: int, symmetric: bool) -> None:
    least, full = (_per_tensor(2, symmetric=symmetric, range=name) for name in ("mse", "minmax"))
    for seed in range(3):
        x = _gaussian(count, seed)
        assert _sqnr(least, x) >= _sqnr(full, x) + 4


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_quantization_noise_of_uniform_values_is_a_twelfth_of_the_squared_step(bits: int) -> None:
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    noise = (float(x.max()) / ((1 << bits) - 1)) ** 2 / 12
    assert _sqnr(_per_tensor(bits), x) == pytest.approx(
        10 * np.log10(float(x.square().mean()) / noise), abs=0.3
    )


ANY_MAGNITUDE: dict[str, Codec] = {
    "float8": Float8(),
    "float8_channel": Float8(granularity="channel", scale_type="float32"),
    "sign": Sign(),
    "sign_tensor": Sign(granularity="tensor", scale_type="float32"),
    "one_bit": _per_tensor(1, symmetric=True),
    "four_bits": affine(bits=4, granularity="channel"),
    "four_bits_mse": _per_tensor(4, range="mse"),
    "four_bits_percentile": _per_tensor(4, range="percentile", percentile=99.0),
    "eight_bits": affine(bits=8, granularity="block"),
    "twelve_bits": _per_tensor(12, symmetric=True, scale_type="float32"),
    "sixteen_bits": _per_tensor(16),
    "auto": affine(bits="auto", budget=3.0, granularity="channel"),
}


@pytest.mark.cover(1)
@pytest.mark.parametrize("factor", [1e-5, 1e-30, 1e-32, 1e5, 1e30])
@pytest.mark.parametrize("name", ANY_MAGNITUDE)
def test_sqnr_is_the_same_at_any_magnitude_of_the_values(name: str, factor: float) -> None:
    x = _gaussian(8 * 16 * 30).view(8, 16, 30)
    at_one = _sqnr(ANY_MAGNITUDE[name], x)
    assert _sqnr(ANY_MAGNITUDE[name], x * factor) == pytest.approx(at_one, abs=0.5)
