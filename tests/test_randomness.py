from hashlib import blake2b
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from fedsplit.quant.quantization import TensorKind, rounding_seed
from fedsplit.randomness import generator, numpy_generator, seed_modules, seed_of
from fedsplit.recording.ledger import Direction
from fedsplit.transport.links import KIND_OF, weights_seed

NAMED = {"client": 1, "round": 2, "epoch": 3, "step": 4}


def test_seed_of_a_draw_changes_with_each_of_its_names() -> None:
    seeds = {seed_of(7, "batches", **NAMED), seed_of(8, "batches", **NAMED), seed_of(7, "dropout", **NAMED)}
    seeds |= {seed_of(7, "batches", **{**NAMED, name: 9}) for name in NAMED}
    seeds |= {seed_of(7, "batches", client=2, round=1, epoch=3, step=4)}  # numbers that change places
    assert len(seeds) == 3 + len(NAMED) + 1


def test_seeds_of_many_draws_are_all_different_and_fit_63_bits() -> None:
    drawn = [
        seed_of(seed, purpose, client=client, round=round, step=step)
        for seed, purpose, client, round, step in product(
            (0, 1, 11), ("a", "b"), range(12), range(12), range(12)
        )
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= each < 2**63 for each in drawn)


def test_seed_of_a_draw_is_the_documented_blake2b_hash() -> None:
    # blake2b of "0/batches/0/0/0/0", eight bytes little-endian, without the lowest bit
    assert seed_of(0, "batches") == int.from_bytes(_blake2b("0/batches/0/0/0/0"), "little") // 2
    assert seed_of(3, "x", **NAMED) == int.from_bytes(_blake2b("3/x/1/2/3/4"), "little") // 2


def _blake2b(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def test_torch_generator_follows_from_its_names_alone() -> None:
    torch.manual_seed(1)
    first = torch.rand(5, generator=generator(0, "x", **NAMED))
    torch.manual_seed(2)
    torch.rand(3)
    assert torch.equal(first, torch.rand(5, generator=generator(0, "x", **NAMED)))
    assert not torch.equal(first, torch.rand(5, generator=generator(0, "y", **NAMED)))


def test_draws_leave_the_global_generators_unchanged() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.randperm(10, generator=generator(0, "x"))
    numpy_generator(0, "x").permutation(10)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_numpy_generator_follows_from_seed_and_names_alone() -> None:
    def drawn(seed: int, purpose: str, step: int) -> tuple[int, ...]:
        return tuple(numpy_generator(seed, purpose, step=step).integers(0, 2**62, 3).tolist())

    np.random.seed(5)
    first = drawn(0, "x", 1)
    np.random.seed(6)
    assert drawn(0, "x", 1) == first
    assert len({first, drawn(1, "x", 1), drawn(0, "y", 1), drawn(0, "x", 2)}) == 4


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_dropout_follows_from_the_seed_of_its_pass_alone(seed: int) -> None:
    dropout, x = nn.Dropout(0.5), torch.ones(64)
    seed_modules(seed, torch.device("cpu"))
    first = dropout(x)
    torch.rand(7)
    seed_modules(seed, torch.device("cpu"))
    assert torch.equal(dropout(x), first)
    seed_modules(seed // 2 + 1 if seed != 1 else 5, torch.device("cpu"))
    assert not torch.equal(dropout(x), first)


def test_rounding_seeds_of_all_messages_are_different() -> None:
    directions: tuple[Direction, ...] = ("up", "down")
    seeds = [
        weights_seed(seed, direction, part, client, round)
        for seed, direction, part, client, round in product((0, 1), directions, KIND_OF, (0, 1), (0, 1))
    ]
    kinds: tuple[TensorKind, ...] = ("smashed", "cut_gradient")
    seeds += [
        rounding_seed(seed, kind, client, round, step)
        for seed, kind, client, round, step in product((0, 1), kinds, (0, 1), (0, 1), (0, 1))
    ]
    assert len(set(seeds)) == len(seeds)
