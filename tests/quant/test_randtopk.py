from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.quant.codecs.randtopk import RandTopK
from fedsplit.quant.codecs.topk import TopK
from tests.oracles.codecs import numbers_in

SAMPLES, LENGTH, KEPT = 64, 100, 10


def _x() -> Tensor:
    """Values whose largest magnitudes come first."""
    signs = torch.randint(2, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.arange(200.0, 200 - LENGTH, -1) * signs


def _places(codec: TopK, x: Tensor, seed: int, kept: int = KEPT) -> list[list[int]]:
    payload = codec.encode(x, seed=seed).payload
    count, bits = kept * len(x), (x.shape[1] - 1).bit_length()
    places = numbers_in(payload[2 * count :], count, bits)
    return [places[start : start + kept] for start in range(0, count, kept)]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_randtopk_keeps_equally_many_distinct_places_of_each_sample(alpha: float) -> None:
    codec, x = RandTopK(fraction=0.1, alpha=alpha), _x()
    for seed in range(10):
        for places in _places(codec, x, seed):
            assert len(places) == KEPT
            assert all(before < after for before, after in pairwise(places))
            assert places[-1] < LENGTH


def test_randtopk_decodes_kept_values_as_bfloat16_and_the_others_as_zero() -> None:
    codec, x = RandTopK(fraction=0.1, alpha=0.5), _x()
    decoded = codec.decode(codec.encode(x, seed=5))
    for row, values, places in zip(decoded, x, _places(codec, x, 5), strict=True):
        assert row.nonzero().flatten().tolist() == places
        assert torch.equal(row[places], values[places].bfloat16().float())


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5, 0.9])
def test_randtopk_share_of_kept_places_beyond_the_largest_is_alpha(alpha: float) -> None:
    codec, x, seeds = RandTopK(fraction=0.1, alpha=alpha), _x(), 40
    others = [sum(place >= KEPT for place in row) for seed in range(seeds) for row in _places(codec, x, seed)]
    draws = len(others) * KEPT
    assert abs(sum(others) / draws - alpha) < 4 * (alpha * (1 - alpha) / draws) ** 0.5
    # each by itself, so as many as a binomial draw has
    variance = KEPT * alpha * (1 - alpha)
    assert np.var(others) == pytest.approx(variance, rel=0.15)


def test_randtopk_keeps_the_largest_equally_often_and_the_others_equally_often() -> None:
    codec, x, seeds = RandTopK(fraction=0.1, alpha=0.4), _x(), 60
    counts = np.zeros(LENGTH)
    for seed in range(seeds):
        for row in _places(codec, x, seed):
            counts[row] += 1
    for like in (counts[:KEPT], counts[KEPT:]):
        expected = like.mean()
        assert (np.abs(like - expected) < 4.5 * expected**0.5).all()
    assert counts[:KEPT].mean() == pytest.approx(0.6 * SAMPLES * seeds, rel=0.03)


def test_randtopk_with_alpha_zero_gives_the_message_of_topk() -> None:
    x = _x()
    assert RandTopK(fraction=0.1, alpha=0.0).encode(x, seed=3) == TopK(fraction=0.1).encode(x)


def test_randtopk_with_alpha_one_keeps_none_of_the_largest_while_others_are_left() -> None:
    codec = RandTopK(fraction=0.1, alpha=1.0)
    assert all(place >= KEPT for row in _places(codec, _x(), 0) for place in row)


def test_randtopk_fills_up_with_the_largest_where_too_few_others_are_left() -> None:
    x = _x()[:, :8]
    for row in _places(RandTopK(fraction=0.75, alpha=1.0), x, 0, kept=6):
        assert {6, 7} < set(row)
        assert len(set(row)) == 6


def test_randtopk_draws_follow_from_the_seed_and_differ_between_samples() -> None:
    codec, x = RandTopK(fraction=0.1, alpha=0.5), _x()
    assert codec.encode(x, seed=1) == codec.encode(x, seed=1)
    assert codec.encode(x, seed=1) != codec.encode(x, seed=2)
    assert len({tuple(row) for row in _places(codec, x, 1)}) > SAMPLES / 2
