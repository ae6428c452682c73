"""Bands around means over seeds, compared with scipy's own interval."""

import pytest
from scipy import stats

from fedsplit.reports.spread import band_ends, half_interval

VALUES = (0.91, 0.94, 0.90, 0.955, 0.93)


def test_interval_is_that_of_the_mean_by_students_t() -> None:
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=sum(VALUES) / 5, scale=stats.sem(VALUES))
    assert band_ends(VALUES, "interval") == pytest.approx((low, high), rel=1e-12)
    assert half_interval(VALUES) == pytest.approx((high - low) / 2, rel=1e-12)


def test_range_goes_from_the_least_to_the_greatest() -> None:
    assert band_ends(VALUES, "range") == (0.90, 0.955)


def test_band_of_a_single_value_is_the_value() -> None:
    assert half_interval((0.7,)) is None
    assert band_ends((0.7,), "interval") == band_ends((0.7,), "range") == (0.7, 0.7)
