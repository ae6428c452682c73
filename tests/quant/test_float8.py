from math import ceil, prod
from typing import Any

import numpy as np
import pytest
import torch

from fedsplit.quant.codecs.float8 import Float8
from fedsplit.quant.granularity import GranularityName
from fedsplit.quant.message import Corrupt, Message
from tests.oracles.codecs import bfloat16, floats_in, groups, sqnr
from tests.quant.drawn import Shape

MAGNITUDES = np.array(
    [place * 2.0**-9 for place in range(8)]
    + [(1 + place / 8) * 2.0 ** (power - 7) for power in range(1, 16) for place in range(8)][:-1]
)
"""Magnitudes that e4m3 holds: steps of 2^-9 below 2^-6, then eight per power of two, the last being 448."""
GRANULARITIES: tuple[tuple[GranularityName, int, int], ...] = (
    ("tensor", 64, 1),
    ("channel", 64, 1),
    ("channel", 64, 2),
    ("block", 7, 1),
)
SHAPE = (4, 3, 5, 2)


def _codec(granularity: tuple[GranularityName, int, int], **options: Any) -> Float8:
    name, block_size, channel_dim = granularity
    return Float8(granularity=name, block_size=block_size, channel_dim=channel_dim, **options)


def test_float8_reference_has_127_magnitudes_up_to_448() -> None:
    assert (MAGNITUDES.max(), len(MAGNITUDES)) == (448, 127)


@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_float8_decoded_values_are_the_nearest_e4m3_values_times_the_scale(
    granularity: tuple[GranularityName, int, int], scale_type: str
) -> None:
    for seed in range(10):
        draw = np.random.default_rng(seed)
        values = (draw.standard_normal(SHAPE) * draw.lognormal(0, 3, SHAPE)).astype(np.float32)
        codec = _codec(granularity, scale_type=scale_type)
        x = torch.from_numpy(values)
        message = codec.encode(x)
        decoded, flat = codec.decode(message).double().numpy().ravel(), values.astype(np.float64).ravel()
        for row, places in enumerate(groups(SHAPE, *granularity)):
            scale = np.abs(flat[places]).max(keepdims=True) / 448
            if scale_type == "bfloat16":
                scale = bfloat16(scale, up=True)
            size = 2 if scale_type == "bfloat16" else 4
            sent = floats_in(message.payload[row * size : (row + 1) * size], scale_type)
            assert sent == pytest.approx(scale, rel=1e-6)
            scaled = np.abs(flat[places]) / sent
            distance = np.abs(scaled[:, None] - MAGNITUDES).min(1)
            got = np.abs(decoded[places]) / sent
            assert (np.abs(got - scaled) <= distance * (1 + 1e-5) + 1e-6 * scaled).all()
            assert np.abs(got[:, None] - MAGNITUDES).min(1) == pytest.approx(0, abs=1e-4)
            assert (np.sign(decoded[places]) * np.sign(flat[places]) >= 0).all()


@pytest.mark.cover(1)
@pytest.mark.parametrize("shape", [(), (1,), (13,), (8, 3), (2, 3, 5)])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_float8_payload_has_the_size_of_the_closed_form(
    granularity: tuple[GranularityName, int, int], shape: Shape
) -> None:
    name, _, channel_dim = granularity
    channels = shape[channel_dim] if len(shape) > channel_dim else 1
    rows = {"tensor": 1, "channel": channels, "block": ceil(prod(shape) / 7)}[name]
    assert _codec(granularity).size(shape) == 2 * rows + prod(shape)
    assert _codec(granularity, scale_type="float32").size(shape) == 4 * rows + prod(shape)


def test_float8_error_over_a_wide_range_is_at_most_the_documented_one() -> None:
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.choice([-1, 1], 5000) * 2 ** draw.uniform(-30, 0, 5000)).to(torch.float32)
    error = (Float8().simulate(x).decoded.double() - x.double()).abs()
    scale = x.double().abs().max() / 448 * (1 + 2**-7)
    assert (error <= torch.maximum(x.double().abs() * 2**-4, scale * 2**-10) * (1 + 1e-6)).all()


def test_float8_sqnr_of_gaussian_values_is_above_thirty_decibels() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 64)))
    assert sqnr(x.numpy(), Float8().simulate(x).decoded.numpy()) > 30


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_float8_decoder_refuses_codes_of_nan(code: int) -> None:
    payload = b"\x80\x3f" + bytes([0x38, code])
    with pytest.raises(Corrupt):
        Float8().decode(Message.seal(payload, (2,), torch.float32))
    whole = Message.seal(b"\x80\x3f" + bytes([0x38, 0xB8]), (2,), torch.float32)
    assert Float8().decode(whole).tolist() == [1.0, -1.0]
