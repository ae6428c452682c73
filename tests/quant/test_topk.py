from math import ceil, prod

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.message import Corrupt, Message
from tests.oracles.codecs import bfloat16, floats_in, numbers_in, stream
from tests.quant.drawn import Shape

SHAPES: tuple[Shape, ...] = ((7,), (100,), (4, 9), (3, 257), (5, 4, 3), (2, 8, 4, 4), (6, 1), (1, 256))
FRACTIONS = (0.001, 0.1, 0.25, 0.5, 0.99, 1.0)


def _distinct(shape: Shape, seed: int = 0) -> Tensor:
    """Values whose magnitudes all differ, of both signs."""
    draw = np.random.default_rng(seed)
    magnitudes = draw.permutation(prod(shape)) + 1.0
    return torch.from_numpy((magnitudes * draw.choice([-1, 1], prod(shape))).reshape(shape)).to(torch.float32)


def _kept(x: Tensor, fraction: float) -> int:
    length = x.numel() // len(x) if x.dim() > 1 else x.numel()
    return max(1, round(fraction * length))


@pytest.mark.cover(1)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_topk_keeps_the_largest_magnitudes_of_each_sample_as_bfloat16(shape: Shape, fraction: float) -> None:
    for seed in range(3):
        x = _distinct(shape, seed)
        samples = x.double().numpy().reshape(shape[0] if len(shape) > 1 else 1, -1)
        expected = np.zeros_like(samples)
        for row, sample in zip(expected, samples, strict=True):
            places = np.argsort(-np.abs(sample))[: _kept(x, fraction)]
            row[places] = bfloat16(sample[places])
        codec = TopK(fraction=fraction)
        assert codec.decode(codec.encode(x)).reshape(samples.shape).tolist() == expected.tolist()


@pytest.mark.cover(1)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_topk_payload_is_values_then_places_in_the_fewest_bits(shape: Shape, fraction: float) -> None:
    x, codec = _distinct(shape), TopK(fraction=fraction)
    samples = shape[0] if len(shape) > 1 else 1
    length, kept = prod(shape) // samples, samples * _kept(x, fraction)
    bits = max(1, ceil(np.log2(length)))
    payload = codec.encode(x).payload
    assert len(payload) == codec.size(shape) == codec.max_size(shape) == 2 * kept + ceil(kept * bits / 8)
    places = np.array(numbers_in(payload[2 * kept :], kept, bits)).reshape(samples, -1)
    assert (np.diff(places, axis=1) > 0).all()
    flat = x.reshape(samples, -1).double().numpy()
    sent = bfloat16(np.take_along_axis(flat, places, 1))
    assert floats_in(payload[: 2 * kept], "bfloat16").tolist() == sent.ravel().tolist()


def test_topk_with_fraction_one_keeps_every_value_as_bfloat16() -> None:
    x = torch.randn(4, 33, generator=torch.Generator().manual_seed(0))
    assert torch.equal(TopK(fraction=1.0).simulate(x).decoded, x.bfloat16().float())


def test_topk_samples_are_the_first_dimension_unless_it_is_the_only_one() -> None:
    x = torch.tensor([1.0, 2.0, 30.0, 40.0])
    assert TopK(fraction=0.5).simulate(x).decoded.tolist() == [0, 0, 30, 40]
    assert TopK(fraction=0.5).simulate(x.view(2, 2)).decoded.tolist() == [[0, 2], [0, 40]]


def test_topk_keeps_as_many_places_of_equal_magnitudes() -> None:
    for value in (0.0, 1.0, -2.5):
        assert len(TopK(fraction=0.3).encode(torch.full((5, 10), value)).payload) == 2 * 15 + ceil(15 * 4 / 8)


def test_topk_error_of_magnitudes_that_differ_only_in_float64_is_within_the_bound() -> None:
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1)):
        x = torch.tensor([1 + 2e-12, 1 + 1e-12, 1.0], dtype=torch.float64)[list(order)]
        codec = TopK(fraction=2 / 3)
        assert ((codec.decode(codec.encode(x)) - x).abs() <= codec.error_bound(x)).all()


def _message(values: list[float], places: list[int], bits: int, shape: Shape) -> Message:
    sent = b"".join(torch.tensor([value]).numpy().tobytes()[2:] for value in values)
    return Message.seal(sent + stream(places, bits), shape, torch.float32)


def test_topk_decoder_puts_values_at_the_places_of_the_payload() -> None:
    message = _message([1.0, -2.0], [1, 4], 3, (5,))
    assert TopK(fraction=0.4).decode(message).tolist() == [0, 1, 0, 0, -2]


@pytest.mark.parametrize("places", [[4, 1], [1, 1], [1, 5], [1, 7], [7, 7]])
def test_topk_decoder_refuses_places_not_ascending_or_beyond_the_sample(places: list[int]) -> None:
    with pytest.raises(Corrupt):
        TopK(fraction=0.4).decode(_message([1.0, -2.0], places, 3, (5,)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_topk_decoder_refuses_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(Corrupt):
        TopK(fraction=0.4).decode(_message([1.0, value], [1, 4], 3, (5,)))
