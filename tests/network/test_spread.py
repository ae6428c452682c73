"""Quantities over clients: what is drawn follows the stated distribution, and depends on nothing else."""

from math import log

import pytest
from scipy.stats import kstest, norm

from fedsplit.config.values import Spread, SpreadFromZero, describe_allowed, fits
from fedsplit.network.network import SimulatedNetwork, draw_quantity


def drawn_for_many_clients(spread: object, seed: int = 0, what: str = "speed") -> list[float]:
    return [draw_quantity(spread, seed, what, client) for client in range(2000)]


def test_spread_of_a_number_gives_it_to_every_client() -> None:
    assert drawn_for_many_clients(7) == [7.0] * 2000


def test_uniform_spread_is_distributed_uniformly_in_its_range() -> None:
    found = drawn_for_many_clients(["uniform", 5, 20])
    assert kstest(found, "uniform", args=(5, 15)).pvalue > 0.01
    assert 5 <= min(found) < 5.1
    assert 19.9 < max(found) < 20
    assert drawn_for_many_clients(["uniform", 5, 5]) == [5.0] * 2000


def test_lognormal_spread_has_normal_logarithms_around_that_of_the_median() -> None:
    logarithms = [log(value) for value in drawn_for_many_clients(["lognormal", 14.7, 0.5])]
    assert kstest(logarithms, norm(log(14.7), 0.5).cdf).pvalue > 0.01
    assert drawn_for_many_clients(["lognormal", 14.7, 0]) == [14.7] * 2000


def test_spread_draws_follow_from_seed_and_quantity_alone() -> None:
    spread = ["lognormal", 10, 0.5]
    assert drawn_for_many_clients(spread) == drawn_for_many_clients(spread)
    for other in (drawn_for_many_clients(spread, seed=1), drawn_for_many_clients(spread, what="latency")):
        assert not set(other) & set(drawn_for_many_clients(spread))


def test_device_has_the_speeds_of_its_network_in_bits_and_multiply_adds_per_second() -> None:
    network = SimulatedNetwork(
        up_mbps=8,
        down_mbps=["uniform", 1, 2],
        latency_s=0.05,
        client_gmacs=None,
        server_up_mbps=None,
        server_down_mbps=100.0,
        server_gmacs=5000.0,
        cost_per_mb=0.5,
    )
    device = network.device(3, seed=0)
    assert (device.up, device.speed, device.latency) == (8e6, float("inf"), 0.05)
    assert 1e6 < device.down < 2e6
    assert device == network.device(3, seed=0) != network.device(4, seed=0)
    assert (network.servers.up, network.servers.down, network.servers.speed) == (float("inf"), 1e8, 5e12)
    assert network.cost(2_500_000) == 1.25


RIGHT = [3, 0.5, ["uniform", 1, 1], ["uniform", 1, 2], ["lognormal", 3, 0]]
WRONG = [
    -1,
    True,
    "fast",
    None,
    float("inf"),
    float("nan"),
    1e13,
    [1, 2],
    {},
    ["uniform", 1],
    ["uniform", 2, 1],
    ["uniform", 1, 2, 3],
    ["normal", 1, 2],
    {"low": 1, "high": 2},
    ["lognormal", 1, -1],
    ["lognormal", 1, 6],
    ["lognormal", 1, float("nan")],
    ["lognormal", "1", 1],
    ["uniform", -1, 1],
]


@pytest.mark.parametrize("value", RIGHT, ids=str)
def test_spread_may_be_a_number_or_a_distribution(value: object) -> None:
    assert fits(Spread, value)
    assert fits(SpreadFromZero, value)


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_spread_of_another_form_or_range_is_refused(value: object) -> None:
    assert not fits(Spread, value)
    assert not fits(SpreadFromZero, value)


@pytest.mark.parametrize("value", [0, ["uniform", 0, 1], ["lognormal", 0, 1]], ids=str)
def test_spread_with_zero_is_allowed_only_for_a_latency(value: object) -> None:
    assert not fits(Spread, value)
    assert fits(SpreadFromZero, value)
    assert "[uniform, low, high] or [lognormal, median, sigma up to 5]" in describe_allowed(Spread)
