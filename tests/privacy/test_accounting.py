"""Epsilon of composed Gaussians: published numbers, limits, and another way to the same value."""

from math import erfc, exp, inf, sqrt

import pytest

from fedsplit.privacy.accountant import Accountant
from fedsplit.privacy.accounting import epsilon, mu_square
from fedsplit.privacy.defence import Unit
from fedsplit.privacy.defences.gaussian import Gaussian

EXPECTED = {
    "zero_out": {
        (1, 1): 4.37718,
        (1, 10): 17.85659,
        (4, 20): 4.98331,
        (20, 100): 1.99309,
        (0.5, 8): 39.38281,
        (0.3, 4): 49.88371,
        (0.1, 8): 519.69820,
    },
    "replace": {
        (1, 1): 9.99726,
        (1, 10): 46.21121,
        (4, 20): 11.48002,
        (20, 100): 4.37718,
        (0.5, 8): 111.40425,
    },
}
"""Epsilon at delta 1e-5 by sigma and releases; those for leaving out are also what dp-accounting gives."""
CASES = [(unit, *case, value) for unit, cases in EXPECTED.items() for case, value in cases.items()]


@pytest.mark.parametrize(("unit", "sigma", "releases", "expected"), CASES)
def test_epsilon_of_composed_gaussians_is_the_known_one(
    unit: Unit, sigma: float, releases: int, expected: float
) -> None:
    mu = sqrt(mu_square(releases, sigma, unit))
    assert epsilon(mu, 1e-5) == pytest.approx(expected, abs=6e-6)


@pytest.mark.parametrize("mu", [0.3, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_epsilon_solves_the_formula_for_delta(mu: float, delta: float) -> None:
    """Written as it stands, it can be computed as long as `e^epsilon` can."""
    found = epsilon(mu, delta)

    def phi(x: float) -> float:
        return erfc(-x / sqrt(2)) / 2

    assert phi(-found / mu + mu / 2) - exp(found) * phi(-found / mu - mu / 2) == pytest.approx(
        delta, rel=1e-6
    )


def test_epsilon_at_the_ends_of_its_range() -> None:
    assert epsilon(0.0, 1e-5) == 0
    assert epsilon(1e-9, 1e-5) == 0
    assert epsilon(inf, 1e-5) == epsilon(1.0, 0.0) == inf
    assert epsilon(1.0, 1.0) == 0
    large = epsilon(2000.0, 1e-5)
    assert large == pytest.approx(2000**2 / 2 + 4.26 * 2000, rel=1e-3)
    assert 0 < epsilon(0.01, 1e-5) < epsilon(0.1, 1e-5) < epsilon(0.1, 1e-6)


def test_reason_is_given_for_each_column_that_nothing_bounds() -> None:
    bounded = Gaussian(sigma=1, clip=1, delta=1e-5, unit="replace")
    unclipped = Gaussian(sigma=1, clip=None, delta=1e-5, unit="replace")

    def reasons(defence: Gaussian, mixing: str | None = None) -> set[str]:
        split = {"sends_smashed": True, "gets_gradients": True, "says_uploads": True, "uploads_labels": True}
        return set(Accountant(defence=defence, mixing=mixing, **split).reasons())

    assert reasons(bounded) == {"weights", "features", "labels"}
    assert (
        reasons(unclipped) == reasons(bounded, mixing="norm1") == {"smashed", "weights", "features", "labels"}
    )
