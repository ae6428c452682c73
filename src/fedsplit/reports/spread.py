"""Spread of a number over seeds: their range, or the interval of their mean."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Literal, TypeAlias

Band: TypeAlias = Literal["range", "interval"]
"""Band drawn around a mean: from the least seed to the greatest, or the 95 % interval of the mean."""
BAND_WORDS: Mapping[Band, str] = {"range": "Mean and range", "interval": "Mean and its 95 % interval"}
"""Words of legends for a mean with its band."""


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % confidence interval of the mean, by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # noqa: PLC0415  (slow, and few tables have intervals)

    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))


def band_ends(values: Sequence[float], band: Band) -> tuple[float, float]:
    """The lower and the upper end of the band around the mean; of a single value that value."""
    if band == "range":
        return min(values), max(values)
    mean, half = fmean(values), half_interval(values) or 0.0
    return mean - half, mean + half
