from typing import Any

import numpy as np
import pytest

from fedsplit.data.distributions.dirichlet import Dirichlet
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.distributions.feature_shift import FeatureShift
from fedsplit.data.distributions.iid import Iid
from fedsplit.data.distributions.natural import Natural
from fedsplit.data.distributions.pathological import Pathological
from fedsplit.data.distributions.quantity_skew import QuantitySkew
from fedsplit.data.distributions.shards import Shards
from fedsplit.errors import UserError
from fedsplit.randomness import numpy_generator
from tests.conftest import Configure


def _labels(samples: int, classes: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(classes, size=samples)


def _dirichlet(alpha: float = 0.5, min_samples: int = 1, attempts: int = 200) -> Dirichlet:
    return Dirichlet(alpha=alpha, min_samples=min_samples, attempts=attempts)


EACH = [
    pytest.param(Iid(), id="iid"),
    pytest.param(_dirichlet(0.1), id="dirichlet-skewed"),
    pytest.param(_dirichlet(100.0), id="dirichlet-even"),
    pytest.param(Shards(classes_per_client=2), id="shards-2"),
    pytest.param(Shards(classes_per_client=10), id="shards-all"),
    pytest.param(Dirichlet(alpha=0.1, min_samples=1, attempts=200, self_balancing=True), id="self-balancing"),
    pytest.param(Pathological(shards_per_client=1), id="pathological-1"),
    pytest.param(Pathological(shards_per_client=3), id="pathological-3"),
    pytest.param(QuantitySkew(exponent=0.0, min_samples=1), id="quantity-even"),
    pytest.param(QuantitySkew(exponent=1.5, min_samples=2), id="quantity-skewed"),
    pytest.param(FeatureShift(rotation=45.0, colour=0.3), id="feature-shift"),
]


@pytest.mark.parametrize("distribution", EACH)
@pytest.mark.parametrize(("samples", "clients"), [(200, 5), (503, 7), (1000, 12)])
@pytest.mark.parametrize("seed", [0, 1, 17])
def test_distribution_gives_every_sample_to_exactly_one_client(
    distribution: Distribution, samples: int, clients: int, seed: int
) -> None:
    shards = distribution.split(_labels(samples), clients, seed)
    assert len(shards) == clients
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(samples))
    assert min(map(len, shards)) > 0


@pytest.mark.parametrize(
    "distribution",
    [Iid(), _dirichlet(), Pathological(shards_per_client=1), QuantitySkew(exponent=1.0, min_samples=1)],
)
@pytest.mark.parametrize("samples", [1, 2, 9])
def test_distribution_to_one_client_gives_it_every_sample(distribution: Distribution, samples: int) -> None:
    (shard,) = distribution.split(_labels(samples), 1, 0)
    assert sorted(shard.tolist()) == list(range(samples))


@pytest.mark.parametrize("distribution", EACH)
def test_distribution_follows_from_the_seed_alone(distribution: Distribution) -> None:
    labels = _labels(300)
    np.random.seed(1)
    first = distribution.split(labels, 6, 3)
    np.random.seed(2)
    again, other = distribution.split(labels, 6, 3), distribution.split(labels, 6, 4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("samples", "clients"), [(10, 10), (11, 4), (1000, 7)])
def test_iid_sizes_differ_by_at_most_one(samples: int, clients: int) -> None:
    sizes = [len(shard) for shard in Iid().split(_labels(samples), clients, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_shards_of_sorted_labels_have_even_class_shares() -> None:
    labels = np.repeat(np.arange(10), 500)
    for shard in Iid().split(labels, 10, 0):
        shares = np.bincount(labels[shard], minlength=10) / len(shard)
        assert np.abs(shares - 0.1).max() < 0.07  # five standard deviations of 500 draws


def _largest_class_share(distribution: Distribution) -> float:
    labels = np.repeat(np.arange(10), 200)
    shards = distribution.split(labels, 5, 0)
    return float(np.mean([np.bincount(labels[s]).max() / len(s) for s in shards]))


def test_dirichlet_class_shares_are_skewed_with_small_alpha_and_even_with_large_alpha() -> None:
    shares = [_largest_class_share(_dirichlet(alpha)) for alpha in (0.05, 1.0, 1e4)]
    assert shares[0] > 0.4
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0.1, abs=0.01)


def test_dirichlet_with_very_large_alpha_gives_every_client_its_share_of_every_class() -> None:
    labels = np.repeat(np.arange(4), 1000)
    for shard in _dirichlet(1e8).split(labels, 5, 0):
        assert np.abs(np.bincount(labels[shard]) - 200).max() <= 2


@pytest.mark.parametrize("min_samples", [1, 10, 25])
@pytest.mark.parametrize("seed", range(5))
def test_dirichlet_gives_every_client_at_least_min_samples(min_samples: int, seed: int) -> None:
    shards = _dirichlet(0.3, min_samples, attempts=1000).split(_labels(300), 5, seed)
    assert min(map(len, shards)) >= min_samples


@pytest.mark.parametrize("alpha", [1e-3, 1e-8])
def test_dirichlet_with_extremely_small_alpha_gives_nearly_every_class_to_one_client(alpha: float) -> None:
    labels = np.repeat(np.arange(10), 50)
    shards = _dirichlet(alpha, attempts=1000).split(labels, 3, 0)
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(500))
    owners = [sum(label in labels[shard] for shard in shards) for label in range(10)]
    assert sum(owners) <= 12


def test_dirichlet_refuses_min_samples_beyond_the_samples_per_client() -> None:
    with pytest.raises(UserError, match="must be at most 20 ") as caught:
        _dirichlet(min_samples=21).split(_labels(100), 5, 0)
    assert (caught.value.key, caught.value.value) == ("distribution.min_samples", 21)


def _plainly_drawn(
    labels: np.ndarray, clients: int, alpha: float, seed: int, attempt: int
) -> list[np.ndarray]:
    """A draw, class by class and client by client, whatever sizes it gives."""
    draw = numpy_generator(seed, "distribution", step=attempt)
    shards: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = draw.permutation(np.flatnonzero(labels == label))
        shares = draw.dirichlet(np.full(clients, alpha))
        ends = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for shard, part in zip(shards, np.split(members, ends), strict=True):
            shard.append(part)
    return [np.concatenate(shard) for shard in shards]


@pytest.mark.parametrize(
    ("clients", "alpha", "least"), [(5, 0.3, 10), (1, 0.3, 2), (30, 1.0, 2), (20, 0.3, 5)]
)
@pytest.mark.parametrize("seed", range(3))  # the last of these is short of samples in its first draw
def test_dirichlet_takes_the_first_draw_that_gives_each_client_its_minimum(
    clients: int, alpha: float, least: int, seed: int
) -> None:
    labels = _labels(600)
    draws = (_plainly_drawn(labels, clients, alpha, seed, attempt) for attempt in range(1000))
    first = next(draw for draw in draws if min(map(len, draw)) >= least)
    shards = _dirichlet(alpha, least, attempts=1000).split(labels, clients, seed)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(shards, first, strict=True))


@pytest.mark.parametrize(("clients", "alpha", "least"), [(5, 0.01, 20), (300, 0.1, 2), (1000, 0.3, 1)])
def test_dirichlet_gives_clients_what_its_first_draw_leaves_them_short_of(
    clients: int, alpha: float, least: int
) -> None:
    labels = _labels(1000)
    shards = _dirichlet(alpha, least, attempts=3).split(labels, clients, 7)
    assert np.array_equal(np.sort(np.concatenate(list(shards))), np.arange(1000))
    drawn = _plainly_drawn(labels, clients, alpha, 7, 0)
    for ours, theirs in zip(shards, drawn, strict=True):
        assert len(ours) >= least
        kept = set(ours.tolist()) & set(theirs.tolist())
        if len(theirs) > least:  # gives away, and takes nothing
            assert len(kept) == len(ours)
        else:  # keeps what it has, and takes what it lacks
            assert len(kept) == len(theirs)
            assert len(ours) == least


@pytest.mark.parametrize(("clients", "per_client", "most"), [(3000, 5, 1), (3000, 40, 333)])
def test_dirichlet_of_many_clients_does_not_draw_in_vain(
    clients: int, per_client: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = 0
    draw_once = Dirichlet._draw

    def counted(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        nonlocal draws
        draws += 1
        return draw_once(*arguments)

    monkeypatch.setattr(Dirichlet, "_draw", counted)
    shards = _dirichlet(0.3, 2, attempts=1000).split(np.arange(clients * per_client) % 10, clients, 0)
    assert min(map(len, shards)) >= 2
    assert draws <= most + 1  # the first is made again


@pytest.mark.parametrize(
    ("classes", "k", "clients"), [(10, 2, 5), (10, 3, 7), (10, 1, 10), (4, 4, 3), (7, 2, 20)]
)
@pytest.mark.parametrize("seed", [0, 5])
def test_shards_give_each_client_exactly_classes_per_client_classes(
    classes: int, k: int, clients: int, seed: int
) -> None:
    labels = _labels(1000, classes)
    shards = Shards(classes_per_client=k).split(labels, clients, seed)
    assert [len(np.unique(labels[shard])) for shard in shards] == [k] * clients


@pytest.mark.parametrize(("k", "clients"), [(2, 5), (3, 7), (2, 8)])
def test_shards_divide_classes_among_clients_and_samples_of_a_class_evenly(k: int, clients: int) -> None:
    labels = np.repeat(np.arange(10), 60)
    shards = Shards(classes_per_client=k).split(labels, clients, 1)
    held = np.array([np.bincount(labels[shard], minlength=10) for shard in shards])
    owners = (held > 0).sum(0)
    assert owners.max() - owners.min() <= 1
    for label in range(10):
        parts = held[:, label][held[:, label] > 0]
        assert parts.max() - parts.min() <= 1


def test_shards_of_other_seeds_combine_other_classes_and_samples() -> None:
    labels = np.repeat(np.arange(10), 20)
    pairs = set()
    for seed in range(6):
        shards = Shards(classes_per_client=2).split(labels, 5, seed)
        pairs.add(tuple(sorted(tuple(np.unique(labels[shard]).tolist()) for shard in shards)))
    assert len(pairs) == 6
    halves = [Shards(classes_per_client=10).split(labels, 2, seed)[0] for seed in range(2)]
    assert set(halves[0].tolist()) != set(halves[1].tolist())


@pytest.mark.parametrize(("k", "clients", "least"), [(11, 5, 2), (1, 9, 2), (3, 3, 4)])
def test_shards_refuse_classes_per_client_that_leave_a_class_out_or_exceed_the_classes(
    k: int, clients: int, least: int
) -> None:
    with pytest.raises(UserError, match=f"from {least} to 10 ") as caught:
        Shards(classes_per_client=k).split(np.repeat(np.arange(10), 5), clients, 0)
    assert (caught.value.key, caught.value.value) == ("distribution.classes_per_client", k)


def test_shards_refuse_a_class_with_fewer_samples_than_clients_that_hold_it() -> None:
    with pytest.raises(UserError, match="class 1 has 2 samples for 3 clients") as caught:
        Shards(classes_per_client=2).split(np.array([0] * 10 + [1] * 2), 3, 0)
    assert (caught.value.key, caught.value.value) == ("num_clients", 3)


def _self_balancing(alpha: float) -> Dirichlet:
    return Dirichlet(alpha=alpha, min_samples=1, attempts=1000, self_balancing=True)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_self_balancing_gives_no_further_class_to_a_client_with_its_share(alpha: float, seed: int) -> None:
    labels = np.repeat(np.arange(10), 60)
    shards = _self_balancing(alpha).split(labels, 4, seed)
    for shard in shards:
        held = 0
        for label in range(10):  # the order in which classes are divided
            of_class = int((labels[shard] == label).sum())
            assert of_class == 0 or held < 600 / 4
            held += of_class


def test_self_balancing_makes_shard_sizes_more_even() -> None:
    labels = np.repeat(np.arange(10), 100)

    def spread(distribution: Distribution) -> float:
        return float(np.mean([np.std([len(s) for s in distribution.split(labels, 5, t)]) for t in range(10)]))

    assert spread(_self_balancing(0.1)) < 0.6 * spread(_dirichlet(0.1, attempts=1000))


def test_self_balancing_divides_a_class_that_only_a_full_client_would_take_among_the_others() -> None:
    """With so small an alpha every class has one taker; two clients, four classes: each stops at half."""
    labels = np.repeat(np.arange(4), 10)
    for seed in range(20):
        shards = _self_balancing(1e-9).split(labels, 2, seed)
        assert [len(shard) for shard in shards] == [20, 20]


@pytest.mark.parametrize(("classes", "of_each", "clients", "per_client"), [(10, 60, 10, 2), (6, 30, 9, 4)])
@pytest.mark.parametrize("seed", [0, 3])
def test_pathological_shards_are_consecutive_samples_sorted_by_class(
    classes: int, of_each: int, clients: int, per_client: int, seed: int
) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(classes), of_each))
    shards = Pathological(shards_per_client=per_client).split(labels, clients, seed)
    size = classes * of_each // (clients * per_client)
    assert [len(shard) for shard in shards] == [size * per_client] * clients
    dealt = sorted(
        tuple(np.sort(labels[shard[i : i + size]])) for shard in shards for i in range(0, len(shard), size)
    )
    in_order = np.sort(labels).reshape(-1, size)
    assert dealt == sorted(map(tuple, in_order))


def test_pathological_clients_hold_at_most_as_many_classes_as_shards_within_one_class() -> None:
    labels = np.repeat(np.arange(10), 40)
    for seed in range(5):
        shards = Pathological(shards_per_client=2).split(labels, 10, seed)
        assert {len(np.unique(labels[shard])) for shard in shards} <= {1, 2}
        assert max(len(np.unique(labels[shard])) for shard in shards) == 2


def test_pathological_sizes_differ_by_at_most_the_shards_per_client() -> None:
    sizes = [len(shard) for shard in Pathological(shards_per_client=3).split(_labels(1000), 7, 0)]
    assert sum(sizes) == 1000
    assert max(sizes) - min(sizes) <= 3


@pytest.mark.parametrize(
    ("exponent", "least"), [(0.0, 2), (1.0, 2), (1.0, 10), (2.5, 1), (1e6, 5), (3e38, 5)]
)
@pytest.mark.parametrize("seed", [0, 8])
def test_quantity_skew_sizes_above_min_samples_follow_a_power_law(
    exponent: float, least: int, seed: int
) -> None:
    shards = QuantitySkew(exponent=exponent, min_samples=least).split(_labels(1000), 8, seed)
    sizes = sorted((len(shard) for shard in shards), reverse=True)
    shares = [1 / k**exponent if k == 1 or exponent < 1000 else 0.0 for k in range(1, 9)]
    expected = [least + (1000 - 8 * least) * share / sum(shares) for share in shares]
    assert max(abs(size - each) for size, each in zip(sizes, expected, strict=True)) <= 1


def test_quantity_skew_draws_which_client_is_largest_and_mixes_classes() -> None:
    labels = np.repeat(np.arange(4), 500)
    largest = set()
    for seed in range(8):
        shards = QuantitySkew(exponent=1.0, min_samples=1).split(labels, 5, seed)
        largest.add(int(np.argmax([len(shard) for shard in shards])))
        for shard in shards:
            assert np.abs(np.bincount(labels[shard], minlength=4) / len(shard) - 0.25).max() < 0.15
    assert len(largest) > 2


@pytest.mark.parametrize(
    ("distribution", "key", "value"),
    [
        (QuantitySkew(exponent=1.0, min_samples=21), "min_samples", 21),
        (Pathological(shards_per_client=21), "shards_per_client", 21),
    ],
)
def test_min_samples_and_shards_per_client_beyond_the_samples_are_refused(
    distribution: Distribution, key: str, value: int
) -> None:
    with pytest.raises(UserError, match=r"must be at most 20 \(100 samples, 5 clients\)") as caught:
        distribution.split(_labels(100), 5, 0)
    assert (caught.value.key, caught.value.value) == (f"distribution.{key}", value)


@pytest.mark.parametrize("clients", [1, 3, 11, 30])
def test_natural_division_keeps_the_samples_of_an_owner_together(clients: int) -> None:
    owners = np.random.default_rng(0).integers(30, size=700) * 7  # numbers that are not consecutive
    shards = Natural().split(owners, clients, 0)
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(700))
    held = [set(owners[shard].tolist()) for shard in shards]
    assert sum(map(len, held)) == len(set().union(*held)) == 30
    sizes, largest = [len(shard) for shard in shards], np.unique(owners, return_counts=True)[1].max()
    assert max(sizes) - min(sizes) <= largest  # each is dealt to the client that has fewest


def test_natural_division_draws_by_seed_which_owners_share_a_client() -> None:
    owners = np.repeat(np.arange(20), 5)
    divisions = [Natural().split(owners, 4, seed) for seed in (0, 0, 1)]
    same, again, other = ([shard.tolist() for shard in division] for division in divisions)
    assert same == again
    assert same != other


def test_natural_division_refuses_more_clients_than_owners() -> None:
    with pytest.raises(UserError, match="must be at most 3, the number of owners") as caught:
        Natural().split(np.array([5, 5, 9, 7]), 4, 0)
    assert (caught.value.key, caught.value.value) == ("num_clients", 4)


def test_extreme_distribution_is_a_skewed_dirichlet_with_enough_samples_for_every_client(
    configured: Configure,
) -> None:
    chosen = configured("distribution=extreme").plain()["distribution"]
    assert chosen.pop("_target_").endswith(".Dirichlet")
    labels = np.repeat(np.arange(10), 5000)
    shards = Dirichlet(**chosen).split(labels, 10, 0)
    assert min(map(len, shards)) >= chosen["min_samples"] == 128
    assert float(np.mean([np.bincount(labels[s]).max() / len(s) for s in shards])) > 0.4
