from collections.abc import Callable
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.errors import UserError
from fedsplit.quant.codecs.affine import Affine, affine
from fedsplit.quant.granularity import GranularityName
from fedsplit.quant.message import Corrupt, Message
from fedsplit.quant.scales import ScaleType
from tests.oracles.codecs import Quantized, bfloat16, floats_in, groups, numbers_in, quantized, stream
from tests.quant.drawn import Shape

BITS = (*range(1, 17),)
GRANULARITIES: tuple[tuple[GranularityName, int, int], ...] = (
    ("tensor", 64, 1),
    ("channel", 64, 1),
    ("channel", 64, 0),
    ("block", 7, 1),
    ("block", 64, 1),
)
SHAPE = (5, 3, 4, 7)


def _values(shape: Shape = SHAPE, seed: int = 0) -> Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.standard_normal(shape) * draw.lognormal(0, 2, shape)).to(torch.float32)


def _codec(**options: Any) -> Affine:
    codec = affine(**options)
    assert isinstance(codec, Affine)
    return codec


def _reference(
    x: Tensor,
    granularity: tuple[GranularityName, int, int],
    bits: int,
    symmetric: bool,
    scale_type: ScaleType,
) -> list[tuple[torch.Tensor, Quantized]]:
    """Places of each group, and what becomes of it."""
    flat = x.reshape(-1).double().numpy()
    return [
        (torch.from_numpy(places), quantized(flat[places], bits, symmetric, scale_type))
        for places in groups(x.shape, *granularity)
    ]


@pytest.mark.cover(2)
@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", BITS)
def test_affine_decoded_values_are_those_of_plain_numpy(
    bits: int, granularity: tuple[GranularityName, int, int], symmetric: bool, scale_type: ScaleType
) -> None:
    name, block_size, channel_dim = granularity
    codec = _codec(
        bits=bits,
        granularity=name,
        block_size=block_size,
        channel_dim=channel_dim,
        symmetric=symmetric,
        scale_type=scale_type,
    )
    for x in (_values(seed=bits), _values(seed=100 + bits).abs() + 1, _values(seed=200 + bits) * 1e-20):
        decoded = codec.decode(codec.encode(x)).reshape(-1)
        for places, expected in _reference(x, granularity, bits, symmetric, scale_type):
            error = np.abs(decoded[places].double().numpy() - expected.decoded)
            # float32 may fall to either side in the middle of two codes
            tie = np.abs(expected.exact % 1 - 0.5) < 2.0 ** (bits - 21)
            allowed = expected.scale * (1e-6 + tie) + 2e-7 * np.abs(expected.decoded)
            assert (error <= allowed).all()


@pytest.mark.cover(2)
@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", BITS)
def test_affine_payload_is_scales_then_zero_points_then_codes_group_by_group(
    bits: int, granularity: tuple[GranularityName, int, int], symmetric: bool, scale_type: ScaleType
) -> None:
    name, block_size, channel_dim = granularity
    x = _values(seed=300 + bits)
    close = 2.0 ** (bits - 21)  # to the middle of two codes, where float32 may fall to either side
    codec = _codec(
        bits=bits,
        granularity=name,
        block_size=block_size,
        channel_dim=channel_dim,
        symmetric=symmetric,
        scale_type=scale_type,
    )
    payload, expected = codec.encode(x).payload, _reference(x, granularity, bits, symmetric, scale_type)
    rows, count = len(expected), x.numel()
    scales = rows * (2 if scale_type == "bfloat16" else 4)
    zeros = 0 if symmetric else ceil(rows * bits / 8)
    assert len(payload) == codec.size(x.shape) == scales + zeros + ceil(count * bits / 8)

    assert floats_in(payload[:scales], scale_type) == pytest.approx(
        [group.scale for _, group in expected], rel=1e-6
    )
    sent_zeros = numbers_in(payload[scales : scales + zeros], rows, bits) if not symmetric else [None] * rows
    sent = np.array(numbers_in(payload[scales + zeros :], count, bits))
    at = 0
    for zero, (places, group) in zip(sent_zeros, expected, strict=True):
        codes = sent[at : at + len(places)]
        at += len(places)
        if zero != group.zero and zero is not None:
            assert abs(zero - group.exact_zero) < 0.5 + close
            continue
        different = codes != group.codes
        assert (np.abs(codes - group.codes) <= 1).all()
        assert (np.abs(group.exact[different] % 1 - 0.5) < close).all()


@pytest.mark.cover(1)
@pytest.mark.parametrize(
    ("name", "block_size", "channel_dim", "rows"),
    [
        ("tensor", 64, 1, lambda shape: 1),
        ("channel", 64, 1, lambda shape: shape[1] if len(shape) > 1 else 1),
        ("channel", 64, 2, lambda shape: shape[2] if len(shape) > 2 else 1),
        ("block", 7, 1, lambda shape: ceil(prod(shape) / 7)),
        ("block", 64, 1, lambda shape: ceil(prod(shape) / 64)),
    ],
)
@pytest.mark.parametrize("bits", BITS)
def test_affine_payload_has_the_size_of_the_closed_form(
    bits: int, name: GranularityName, block_size: int, channel_dim: int, rows: Callable[[Shape], int]
) -> None:
    def size(shape: Shape, **options: Any) -> int:
        codec = _codec(bits=bits, granularity=name, block_size=block_size, channel_dim=channel_dim, **options)
        assert codec.max_size(shape) == codec.size(shape)
        return codec.size(shape)

    for shape in ((), (1,), (7,), (8, 3), (3, 64), (65,), (2, 3, 5), (32, 16, 8, 8)):
        codes, scales, zeros = ceil(prod(shape) * bits / 8), rows(shape), ceil(rows(shape) * bits / 8)
        assert size(shape) == 2 * scales + zeros + codes
        assert size(shape, scale_type="float32") == 4 * scales + zeros + codes
        assert size(shape, symmetric=True) == 2 * scales + codes
        assert size(shape, symmetric=True, scale_type="float32") == 4 * scales + codes


def test_affine_payload_of_four_values_in_two_bits_is_that_worked_out_by_hand() -> None:
    codec = _codec(bits=2, granularity="tensor")
    x = torch.tensor([-1.0, 0.0, 0.9, 2.0])  # a step is 1, the zero point 1
    message = codec.encode(x)
    assert message.payload == b"\x80\x3f" + b"\x01" + bytes([0b11_10_01_00])
    assert codec.decode(message).tolist() == [-1.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_affine_codes_other_floating_point_types_as_float32(dtype: torch.dtype) -> None:
    codec, x = _codec(bits=5, granularity="block", block_size=9), _values().to(dtype)
    assert codec.encode(x).payload == codec.encode(x.to(torch.float32)).payload


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_affine_error_in_16_bit_types_is_within_the_bound(bits: int, dtype: torch.dtype) -> None:
    for seed in range(3):
        x = torch.randn(1000, generator=torch.Generator().manual_seed(seed))
        x = torch.cat([x, 1e-3 * x]).to(dtype)
        for symmetric, rounding, name in product((True, False), ("nearest", "stochastic"), ("minmax", "mse")):
            codec = _codec(
                bits=bits,
                granularity="tensor",
                symmetric=symmetric,
                rounding=rounding,
                range=name,
                scale_type="float32",
            )
            error = (codec.simulate(x, seed=seed).decoded.double() - x.double()).abs()
            assert (error <= codec.error_bound(x)).all()


@pytest.mark.parametrize("bits", range(2, 17))
def test_affine_decoder_refuses_the_code_beyond_the_last_of_a_symmetric_range(bits: int) -> None:
    """There is one code less than there could be."""
    codec = _codec(bits=bits, granularity="tensor", symmetric=True)
    for code in (2**bits - 2, 2**bits - 1):
        message = Message.seal(b"\x80\x3f" + stream([0, code, 1], bits), (3,), torch.float32)
        if code == 2**bits - 2:
            assert codec.decode(message)[1] == 2 ** (bits - 1) - 1
        else:
            with pytest.raises(Corrupt):
                codec.decode(message)


def test_affine_block_larger_than_the_tensor_gives_the_payload_of_granularity_tensor() -> None:
    x = _values((11,))
    whole, blocks = _codec(bits=4, granularity="tensor"), _codec(bits=4, granularity="block", block_size=64)
    assert whole.encode(x).payload == blocks.encode(x).payload


def test_affine_scale_is_the_exact_scale_rounded_up_to_bfloat16() -> None:
    """Values fit because it is rounded up; more than that would be lost precision."""
    for seed in range(50):
        x = _values((40,), seed)
        exact = np.array([float(x.max().clamp_min(0).double() - x.min().clamp_max(0).double()) / 15])
        sent = floats_in(_codec(bits=4, granularity="tensor").encode(x).payload[:2], "bfloat16")
        assert sent == bfloat16(exact, up=True)


@pytest.mark.parametrize(("bits", "budget", "key"), [("auto", None, "budget"), (4, 2.0, "budget")])
def test_affine_refuses_automatic_bits_without_a_budget_and_a_budget_with_fixed_bits(
    bits: Any, budget: float | None, key: str
) -> None:
    with pytest.raises(UserError) as caught:
        affine(bits=bits, budget=budget, granularity="tensor")
    assert (caught.value.key, caught.value.value) == (key, budget)
