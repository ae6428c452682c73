from math import ceil, prod
from typing import Any

import numpy as np
import pytest
import torch

from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.granularity import GranularityName
from fedsplit.quant.message import Corrupt, Message
from fedsplit.quant.scales import ScaleType
from tests.oracles.codecs import bfloat16, floats_in, groups, numbers_in
from tests.quant.drawn import Shape

GRANULARITIES: tuple[tuple[GranularityName, int, int], ...] = (
    ("tensor", 64, 1),
    ("channel", 64, 1),
    ("channel", 64, 2),
    ("block", 7, 1),
    ("block", 1000, 1),
)
SHAPE = (4, 3, 5, 2)


def _codec(granularity: tuple[GranularityName, int, int], **options: Any) -> Sign:
    name, block_size, channel_dim = granularity
    return Sign(granularity=name, block_size=block_size, channel_dim=channel_dim, **options)


@pytest.mark.cover(1)
@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_sign_codec_decodes_each_value_to_its_sign_times_the_mean_magnitude(
    granularity: tuple[GranularityName, int, int], scale_type: ScaleType
) -> None:
    for seed in range(10):
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE)).to(torch.float32)
        flat = x.double().numpy().ravel()
        expected = np.empty_like(flat)
        for places in groups(SHAPE, *granularity):
            mean = np.abs(flat[places]).mean(keepdims=True)
            expected[places] = np.sign(flat[places]) * mean
        codec = _codec(granularity, scale_type=scale_type)
        decoded = codec.decode(codec.encode(x)).double().numpy().ravel()
        assert decoded == pytest.approx(expected, rel=2**-8 if scale_type == "bfloat16" else 1e-6)
        assert (np.sign(decoded) == np.sign(flat)).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_sign_payload_is_mean_magnitudes_then_a_bit_a_value(
    granularity: tuple[GranularityName, int, int],
) -> None:
    x = torch.from_numpy(np.random.default_rng(3).standard_normal(SHAPE)).to(torch.float32)
    flat, rows = x.double().numpy().ravel(), groups(SHAPE, *granularity)
    payload = _codec(granularity).encode(x).payload
    means = bfloat16(np.array([np.abs(flat[places]).mean() for places in rows]))
    assert floats_in(payload[: 2 * len(rows)], "bfloat16") == pytest.approx(means, rel=2**-7)
    bits = numbers_in(payload[2 * len(rows) :], x.numel(), 1)
    assert bits == (flat[np.concatenate(rows)] >= 0).astype(int).tolist()


@pytest.mark.cover(1)
@pytest.mark.parametrize("shape", [(), (1,), (13,), (8, 3), (2, 3, 5), (9, 8, 4, 4)])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_sign_payload_has_the_size_of_the_closed_form(
    granularity: tuple[GranularityName, int, int], shape: Shape
) -> None:
    name, block_size, channel_dim = granularity
    channels = shape[channel_dim] if len(shape) > channel_dim else 1
    rows = {"tensor": 1, "channel": channels, "block": ceil(prod(shape) / block_size)}[name]
    assert _codec(granularity).size(shape) == 2 * rows + ceil(prod(shape) / 8)
    assert _codec(granularity, scale_type="float32").size(shape) == 4 * rows + ceil(prod(shape) / 8)


def test_sign_magnitude_of_a_short_last_block_leaves_the_padding_out() -> None:
    codec = Sign(granularity="block", block_size=8)
    assert codec.simulate(torch.tensor([1.0] * 8 + [-4.0])).decoded.tolist() == [1.0] * 8 + [-4.0]


def test_sign_codec_decodes_zeros_as_positive() -> None:
    assert Sign().simulate(torch.tensor([0.0, -2.0, -0.0, 6.0])).decoded.tolist() == [2, -2, 2, 2]


def test_sign_magnitude_is_right_where_the_sum_of_magnitudes_is_beyond_float32() -> None:
    x = torch.tensor([3e38, -3e38] * 20)
    for codec in (Sign(), Sign(granularity="tensor", scale_type="float32")):
        assert codec.simulate(x).decoded.tolist() == pytest.approx(x.tolist(), rel=2**-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sign_error_in_16_bit_types_is_within_the_bound(dtype: torch.dtype) -> None:
    codec = Sign(granularity="tensor", scale_type="float32")
    for seed in range(20):
        x = torch.randn(50, generator=torch.Generator().manual_seed(seed)).to(dtype)
        x[::3] = 0
        error = (codec.decode(codec.encode(x)).double() - x.double()).abs()
        assert (error <= codec.error_bound(x)).all()


@pytest.mark.parametrize("value", [-1.0, -1e-30, torch.nan, torch.inf])
def test_sign_decoder_refuses_magnitudes_that_are_negative_or_not_finite(value: float) -> None:
    payload = torch.tensor([value]).numpy().tobytes()[2:] + b"\1"
    with pytest.raises(Corrupt):
        Sign(granularity="tensor").decode(Message.seal(payload, (3,), torch.float32))
