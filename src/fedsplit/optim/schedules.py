"""Learning-rate schedules: a factor that is a function of round and step, so there is no state to keep."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

from typing_extensions import override

from fedsplit.config.values import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from fedsplit.errors import UserError


class Schedule(ABC):
    """Factor of the learning rate, for clients and server alike."""

    counts_steps: ClassVar[bool] = False
    """True if the factor changes with every local step; otherwise it is constant within a round."""

    @abstractmethod
    def factor(self, round: int) -> float:
        """Factor in `round`, counted from 0; of schedules that count steps, at its first local step."""

    def at(self, round: int, step: int) -> float:
        """Factor at a local step of a round, both counted from 0."""
        return self.factor(round)

    def in_rounds_of(self, steps: int) -> Self:
        """The same schedule where a round has so many local steps."""
        return self


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Schedule whose factor is always 1."""

    @override
    def factor(self, round: int) -> float:
        """Factor of every round, 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Times `gamma` every `step_size` rounds."""

    step_size: PositiveInt
    gamma: PositiveFloat

    @override
    def factor(self, round: int) -> float:
        """`gamma ^ floor(round / step_size)`."""
        return float(self.gamma ** (round // self.step_size))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Times `gamma` at each of the rounds `milestones`."""

    milestones: list[PositiveInt]
    gamma: PositiveFloat

    @override
    def factor(self, round: int) -> float:
        """Factor of a round, `gamma ^ (milestones reached)`."""
        return float(self.gamma ** bisect_right(sorted(self.milestones), round))


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Factor from 1 to `min_factor` along half a cosine over `period` rounds, and `min_factor` after that.

    Source: I. Loshchilov and F. Hutter, "SGDR", 2017, equation 5, without restarts.
    """

    period: PositiveInt
    min_factor: Fraction

    @override
    def factor(self, round: int) -> float:
        """`min + (1 - min) (1 + cos(pi t / period)) / 2`."""
        progress = min(round / self.period, 1.0)
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * progress)) / 2


class WarmupLinear(Schedule):
    """Factor from 0 to 1 in `warmup` local steps, and from there in a straight line to 0 at `total`.

    Local steps are counted through all rounds, `n = round * steps + step`, whoever takes part: a round has as
    many as the client with most samples. Clients with fewer end each round early, so that what a client does
    and what the server does for it have the same factor.

    Source: `transformers.get_linear_schedule_with_warmup`.

    Args:
        warmup: local steps until the factor is 1.
        total: local steps after which it is 0.
    """

    counts_steps = True

    def __init__(self, *, warmup: NonNegativeInt, total: PositiveInt) -> None:
        if total <= warmup:
            raise UserError("total", total, f"must be above warmup={warmup}")
        self.warmup, self.total = warmup, total
        self._round_steps = 1

    @override
    def in_rounds_of(self, steps: int) -> Self:
        own = copy(self)
        own._round_steps = steps
        return own

    @override
    def factor(self, round: int) -> float:
        """`at` of the first local step."""
        return self.at(round, 0)

    @override
    def at(self, round: int, step: int) -> float:
        """`n / warmup`, and then `(total - n) / (total - warmup)`, not below 0."""
        n = round * self._round_steps + step
        if n < self.warmup:
            return n / self.warmup
        return max(0.0, (self.total - n) / (self.total - self.warmup))
