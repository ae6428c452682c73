from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.allocated import AllocatedAffine
from fedsplit.quant.message import Corrupt, Message
from tests.oracles.codecs import bfloat16, floats_in, numbers_in, sqnr


def _codec(budget: float, **options: Any) -> AllocatedAffine:
    codec = affine(bits="auto", budget=budget, **{"granularity": "channel", **options})
    assert isinstance(codec, AllocatedAffine)
    return codec


def _channels(deviations: list[float], values: int = 600, seed: int = 0) -> Tensor:
    """A tensor `(6, channels, values / 6)`."""
    drawn = np.random.default_rng(seed).standard_normal((6, len(deviations), values // 6))
    return torch.from_numpy(drawn * np.array(deviations)[:, None]).to(torch.float32)


def _bits_of(codec: AllocatedAffine, x: Tensor) -> list[int]:
    """As the payload says: four bits a channel, at its start."""
    return numbers_in(codec.encode(x).payload[: ceil(x.shape[1] / 2)], x.shape[1], 4)


DEVIATIONS = [0.01, 0.1, 1.0, 3.0, 10.0, 0.5, 2.0, 0.03]


@pytest.mark.cover(2)
@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "block"])
@pytest.mark.parametrize("budget", [0.3, 0.7, 1.0, 1.5, 2.0, 3.3, 4.0, 6.0, 8.0])
def test_bit_allocation_spends_no_more_than_the_budget(
    budget: float, granularity: str, symmetric: bool, scale_type: str
) -> None:
    codec = _codec(
        budget, granularity=granularity, block_size=256, symmetric=symmetric, scale_type=scale_type
    )
    for seed, deviations in enumerate(([1.0] * 8, DEVIATIONS, [1.0], [1.0, 1e-3] * 10)):
        x = _channels(deviations, 3000, seed)
        assert 8 * len(codec.encode(x).payload) / x.numel() <= budget


@pytest.mark.parametrize("budget", [0.7, 1.0, 2.0, 4.0])
def test_bit_allocation_leaves_at_most_the_bits_of_a_channel_and_its_overhead_unspent(budget: float) -> None:
    x = _channels([1.0, 1.1, 0.9, 1.2] * 8, 3000)
    assert 8 * len(_codec(budget).encode(x).payload) / x.numel() > budget - 1 / 32 - 0.02


def test_bit_allocation_gives_channels_of_larger_variance_more_bits() -> None:
    bits = _bits_of(_codec(3.0), _channels(DEVIATIONS))
    by_deviation = [bits[place] for place in np.argsort(DEVIATIONS)]
    assert by_deviation == sorted(by_deviation)
    assert by_deviation[0] == 0
    assert by_deviation[-1] >= by_deviation[3] + 3
    assert max(bits) <= 8


def test_bit_allocation_gives_each_bit_to_the_channel_whose_error_it_lessens_most() -> None:
    """Greedily, one by one, with the distortions of J. Max's table."""
    distortion = [1.0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.0003035, 0.0000869]
    for seed in range(20):
        deviations = np.random.default_rng(seed).lognormal(0, 1.5, 7)
        x = _channels(deviations.tolist(), 900, seed)
        variances = x.double().var(dim=(0, 2), correction=0).numpy()
        spent = _bits_of(_codec(2.6), x)
        expected = [0] * 7
        for _ in range(sum(spent)):
            gains = [
                v * (distortion[b] - distortion[b + 1]) if b < 8 else 0
                for v, b in zip(variances, expected, strict=True)
            ]
            expected[int(np.argmax(gains))] += 1
        assert spent == expected


def test_bit_allocation_has_a_higher_sqnr_than_equal_bits_at_no_greater_size() -> None:
    x = _channels(DEVIATIONS, 3000)
    values = x.double().numpy()
    everywhere = affine(bits=3, granularity="channel").simulate(x)
    allocated = _codec(3.0).simulate(x)
    assert allocated.size <= everywhere.size
    assert sqnr(values, allocated.decoded.double().numpy()) > 6 + sqnr(
        values, everywhere.decoded.double().numpy()
    )


@pytest.mark.parametrize("budget", [0.5, 2.0, 50.0])
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e-30, 3e38])
def test_constant_channel_gets_no_bits_and_decodes_to_its_mean(constant: float, budget: float) -> None:
    x = _channels([1.0, 1.0, 1.0], 900)
    x[:, 1] = constant
    codec = _codec(budget)
    assert _bits_of(codec, x)[1] == 0
    decoded = codec.decode(codec.encode(x))[:, 1]
    assert sorted(set(decoded.flatten().tolist())) == pytest.approx([constant], rel=2**-8)


@pytest.mark.parametrize("scale_type", ["bfloat16", "float32"])
def test_tiny_budget_leaves_only_the_means_of_the_channels(scale_type: str) -> None:
    x = _channels(DEVIATIONS) + torch.arange(8.0)[:, None]
    codec = _codec(1e-6, scale_type=scale_type)
    message = codec.encode(x)
    assert message.payload[:4] == bytes(4)
    sent = floats_in(message.payload[4:], scale_type)
    means = x.double().mean((0, 2)).numpy()
    precision = 2**-8 if scale_type == "bfloat16" else 2**-20
    assert sent.tolist() == pytest.approx(means.tolist(), rel=precision, abs=1e-6)
    decoded = codec.decode(message)
    assert torch.equal(decoded, torch.from_numpy(sent).to(torch.float32)[None, :, None].expand(x.shape))


@pytest.mark.parametrize("granularity", ["channel", "block"])
def test_budget_used_up_by_bit_widths_and_scales_leaves_only_the_means(granularity: str) -> None:
    x = _channels(DEVIATIONS, 6)
    codec = _codec(0.5, granularity=granularity, block_size=6)
    assert _bits_of(codec, x) == [0] * 8
    assert len(codec.encode(x).payload) == 4 + 2 * 8


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("budget", [9.0, 1e3, 1e30, 3.4e38])
def test_huge_budget_gives_every_channel_eight_bits_and_no_more(budget: float, symmetric: bool) -> None:
    x = _channels(DEVIATIONS)
    codec = _codec(budget, symmetric=symmetric)
    assert _bits_of(codec, x) == [8] * 8
    eight = affine(bits=8, granularity="channel", symmetric=symmetric)
    assert torch.equal(codec.decode(codec.encode(x)), eight.decode(eight.encode(x)))
    assert len(codec.encode(x).payload) == codec.max_size(x.shape) == eight.size(x.shape) + 4  # type: ignore[operator]


def test_constant_tensor_takes_four_bits_and_a_mean_per_channel() -> None:
    x = torch.full((4, 5, 6), 0.3)
    message = _codec(2.0).encode(x)
    assert len(message.payload) == 3 + 5 * 2
    assert set(_codec(2.0).decode(message).flatten().tolist()) == set(bfloat16(np.array([0.3])).tolist())


def test_payload_of_allocated_bits_is_bit_widths_then_means_then_channels_of_equal_bits() -> None:
    x = _channels(DEVIATIONS)
    codec = _codec(3.0)
    payload, bits = codec.encode(x).payload, _bits_of(codec, x)
    expected = payload[:4]
    dropped = [channel for channel, own in enumerate(bits) if own == 0]
    assert dropped
    at = 4 + 2 * len(dropped)
    means = x.double().mean((0, 2)).numpy()[dropped]
    assert floats_in(payload[4:at], "bfloat16").tolist() == pytest.approx(means.tolist(), rel=2**-7)
    expected += payload[4:at]
    for own in sorted(set(bits) - {0}):
        members = x[:, [channel for channel, given in enumerate(bits) if given == own]]
        expected += affine(bits=own, granularity="channel").encode(members).payload
    assert payload == expected


def test_stochastic_rounding_of_allocated_bits_follows_from_the_seed() -> None:
    x, codec = _channels(DEVIATIONS), _codec(2.0, rounding="stochastic")
    first, again, other = (codec.encode(x, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_bit_allocation_of_a_scaled_tensor_is_that_of_the_tensor() -> None:
    x, codec = _channels(DEVIATIONS), _codec(2.0)
    for factor in (1e-30, 1e-10, 1e10, 1e30):
        assert _bits_of(codec, x * factor) == _bits_of(codec, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_error_of_means_in_16_bit_types_is_within_the_bound(dtype: torch.dtype) -> None:
    x, codec = _channels(DEVIATIONS).to(dtype), _codec(1e-6, scale_type="float32")
    x[:, :, ::3] = 0
    error = (codec.decode(codec.encode(x)).double() - x.double()).abs()
    assert (error <= codec.error_bound(x)).all()


def test_decoder_refuses_channels_of_more_than_eight_bits() -> None:
    codec = _codec(2.0)
    for bits in range(9, 16):
        with pytest.raises(Corrupt):
            codec.decode(Message.seal(bytes([bits]) + bytes(100), (4, 1, 6), torch.float32))
