"""Epsilon of Gaussian mechanisms that are composed, in closed form.

Sources: B. Balle and Y.-X. Wang, "Improving the Gaussian Mechanism for Differential Privacy", 2018, Theorem
8; J. Dong, A. Roth and W. Su, "Gaussian Differential Privacy", 2019, for the composition.
"""

from math import erfc, exp, inf, pi, sqrt

from fedsplit.privacy.defence import Unit

SENSITIVITY: dict[Unit, float] = {"replace": 2.0, "zero_out": 1.0}
"""Largest change of a release by one sample, in units of the norm that samples are clipped to."""


def mu_square(releases: float, sigma: float, unit: Unit) -> float:
    """Square of the mu of a sample's releases, each with noise `sigma`; squares of mechanisms add up."""
    return releases * (SENSITIVITY[unit] / sigma) ** 2


def epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon with which a mechanism of this mu is (epsilon, delta)-differentially private.

    It solves `delta = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)` by bisection.
    """
    if mu == 0 or delta >= 1:
        return 0.0
    if mu == inf or delta == 0:
        return inf
    low, high = -mu / 2, 40.0  # bounds of t = epsilon / mu - mu / 2; beyond 40, delta underflows
    if _delta(low, mu) <= delta:
        return 0.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _delta(middle, mu) > delta else (low, middle)
    return mu * (high + mu / 2)


def _delta(t: float, mu: float) -> float:
    """Delta at `epsilon = mu (t + mu / 2)`; `e^epsilon` is never formed, which would overflow."""
    return erfc(t / sqrt(2)) / 2 - exp(-t * t / 2) * _scaled_erfc((t + mu) / sqrt(2)) / 2


def _scaled_erfc(x: float) -> float:
    """`e^(x^2) erfc(x)` for x of 0 or more."""
    if x < 25:
        return exp(x * x) * erfc(x)
    square = 1 / (2 * x * x)
    return (1 - square * (1 - 3 * square * (1 - 5 * square))) / (x * sqrt(pi))
