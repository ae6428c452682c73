"""Learning-rate schedules: a factor that is a function of the round, so there is no state to keep."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass

from fedsplit.config.values import Fraction, PositiveFloat, PositiveInt


class Schedule(ABC):
    """Factor of the learning rate, for clients and server alike."""

    @abstractmethod
    def factor(self, round: int) -> float:
        """Factor in `round`, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Always 1."""

    def factor(self, round: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Times `gamma` every `step_size` rounds."""

    step_size: PositiveInt
    gamma: PositiveFloat

    def factor(self, round: int) -> float:
        """`gamma ^ floor(round / step_size)`."""
        return float(self.gamma ** (round // self.step_size))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Times `gamma` at each of the rounds `milestones`."""

    milestones: list[PositiveInt]
    gamma: PositiveFloat

    def factor(self, round: int) -> float:
        """`gamma ^ (milestones reached)`."""
        return float(self.gamma ** bisect_right(sorted(self.milestones), round))


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """From 1 to `min_factor` along half a cosine over `period` rounds, and `min_factor` after that.

    Source: I. Loshchilov and F. Hutter, "SGDR", 2017, equation 5, without restarts.
    """

    period: PositiveInt
    min_factor: Fraction

    def factor(self, round: int) -> float:
        """`min + (1 - min) (1 + cos(pi t / period)) / 2`."""
        progress = min(round / self.period, 1.0)
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * progress)) / 2
