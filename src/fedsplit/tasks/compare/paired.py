"""Two classifiers on the same samples: what one loses, and whether that may be nothing."""

from dataclasses import dataclass
from math import sqrt
from typing import Self

from scipy.stats import binomtest
from torch import Tensor


@dataclass(frozen=True)
class Drop:
    """What a classifier loses against a reference.

    Args:
        drop: of accuracy, a fraction; below zero where it gains.
        standard_error: of the drop, over samples: of the mean of paired differences.
        p_value: exact, two-sided (McNemar): how likely samples on which one of both is right would be
            divided at least as unevenly, if both were as good.
    """

    drop: float
    standard_error: float
    p_value: float

    @classmethod
    def of(cls, reference: Tensor, other: Tensor) -> Self:
        """Of which samples each classifies correctly.

        Source: McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947; exact, as a binomial test of the samples that differ.

        Args:
            reference: bool `(n,)`, two samples or more.
            other: bool `(n,)`, of the same samples.
        """
        n = len(reference)
        lost, won = int((reference & ~other).sum()), int((~reference & other).sum())
        mean = (lost - won) / n
        variance = (lost + won - n * mean**2) / (n - 1)
        p = binomtest(lost, lost + won).pvalue if lost + won else 1.0
        return cls(mean, sqrt(max(variance, 0.0) / n), float(p))
