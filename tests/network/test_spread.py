"""Quantities over clients: what is drawn follows the stated distribution, and depends on nothing else."""

from math import log

import pytest
from scipy.stats import kstest, norm

from fedsplit.arguments import Spread, SpreadFromZero, allowed, fits
from fedsplit.network.network import SimulatedNetwork
from fedsplit.network.spread import drawn


def many(spread: object, seed: int = 0, what: str = "speed") -> list[float]:
    return [drawn(spread, seed, what, client) for client in range(2000)]


def test_a_number_is_everybodys() -> None:
    assert many(7) == [7.0] * 2000


def test_uniform_numbers_are_uniform() -> None:
    found = many(["uniform", 5, 20])
    assert kstest(found, "uniform", args=(5, 15)).pvalue > 0.01
    assert 5 <= min(found) < 5.1
    assert 19.9 < max(found) < 20
    assert many(["uniform", 5, 5]) == [5.0] * 2000


def test_the_logarithms_of_lognormal_numbers_are_normal_around_that_of_the_median() -> None:
    logarithms = [log(value) for value in many(["lognormal", 14.7, 0.5])]
    assert kstest(logarithms, norm(log(14.7), 0.5).cdf).pvalue > 0.01
    assert many(["lognormal", 14.7, 0]) == [14.7] * 2000


def test_what_is_drawn_depends_on_seed_quantity_and_client_alone() -> None:
    spread = ["lognormal", 10, 0.5]
    assert many(spread) == many(spread)
    for other in (many(spread, seed=1), many(spread, what="latency")):
        assert not set(other) & set(many(spread))


def test_a_device_has_what_its_network_says_in_bits_and_multiply_adds_a_second() -> None:
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
def test_a_spread_is_a_number_or_a_distribution(value: object) -> None:
    assert fits(Spread, value)
    assert fits(SpreadFromZero, value)


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_nothing_else_is_a_spread(value: object) -> None:
    assert not fits(Spread, value)
    assert not fits(SpreadFromZero, value)


@pytest.mark.parametrize("value", [0, ["uniform", 0, 1], ["lognormal", 0, 1]], ids=str)
def test_only_a_latency_may_be_nothing(value: object) -> None:
    assert not fits(Spread, value)
    assert fits(SpreadFromZero, value)
    assert "[uniform, low, high] or [lognormal, median, sigma up to 5]" in allowed(Spread)
