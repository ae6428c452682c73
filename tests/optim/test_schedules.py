from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from fedsplit.errors import UserError
from fedsplit.optim.schedules import Constant, Cosine, MultiStep, Schedule, Step, WarmupLinear


def _rates_of_torch(scheduler: type[lr_scheduler.LRScheduler], rounds: int, **kwargs: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    stepped = scheduler(optimizer, **kwargs)
    rates = []
    for _ in range(rounds):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        stepped.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "scheduler", "rounds", "kwargs"),
    [
        (Step(step_size=1, gamma=0.5), lr_scheduler.StepLR, 6, {"step_size": 1, "gamma": 0.5}),
        (Step(step_size=3, gamma=0.1), lr_scheduler.StepLR, 10, {"step_size": 3, "gamma": 0.1}),
        (Step(step_size=4, gamma=1.1), lr_scheduler.StepLR, 10, {"step_size": 4, "gamma": 1.1}),
        (
            MultiStep(milestones=[2, 5, 5], gamma=0.3),
            lr_scheduler.MultiStepLR,
            8,
            {"milestones": [2, 5, 5], "gamma": 0.3},
        ),
        (
            MultiStep(milestones=[7, 3], gamma=0.3),
            lr_scheduler.MultiStepLR,
            10,
            {"milestones": [3, 7], "gamma": 0.3},
        ),
        (MultiStep(milestones=[], gamma=0.3), lr_scheduler.MultiStepLR, 4, {"milestones": [], "gamma": 0.3}),
        (
            Cosine(period=12, min_factor=0.0),
            lr_scheduler.CosineAnnealingLR,
            13,
            {"T_max": 12, "eta_min": 0.0},
        ),
        (Cosine(period=7, min_factor=0.2), lr_scheduler.CosineAnnealingLR, 8, {"T_max": 7, "eta_min": 0.2}),
        (Cosine(period=1, min_factor=0.5), lr_scheduler.CosineAnnealingLR, 2, {"T_max": 1, "eta_min": 0.5}),
    ],
)
def test_schedule_factors_are_those_of_the_scheduler_of_torch(
    schedule: Schedule, scheduler: type[lr_scheduler.LRScheduler], rounds: int, kwargs: dict[str, Any]
) -> None:
    expected = _rates_of_torch(scheduler, rounds, **kwargs)
    assert [schedule.factor(t) for t in range(rounds)] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_cosine_schedule_stays_at_its_smallest_factor_after_its_period() -> None:
    schedule = Cosine(period=5, min_factor=0.25)
    assert [schedule.factor(t) for t in (5, 6, 10, 1000)] == [0.25] * 4


def test_cosine_schedule_without_decay_is_constant() -> None:
    schedule = Cosine(period=5, min_factor=1.0)
    assert [schedule.factor(t) for t in range(8)] == [Constant().factor(t) for t in range(8)] == [1.0] * 8


@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (3, 10), (7, 8)])
def test_warmup_counts_local_steps_through_rounds_as_a_scheduler_that_is_stepped_at_each(
    warmup: int, total: int
) -> None:
    def by_hand(n: int) -> float:
        return n / warmup if n < warmup else max(0.0, (total - n) / (total - warmup))

    expected = _rates_of_torch(lr_scheduler.LambdaLR, 12, lr_lambda=by_hand)
    schedule = WarmupLinear(warmup=warmup, total=total).in_rounds_of(4)
    assert [schedule.at(round, step) for round in range(3) for step in range(4)] == expected
    assert [schedule.factor(round) for round in range(3)] == expected[::4]


def test_warmup_without_a_step_after_it_is_refused() -> None:
    with pytest.raises(UserError, match="total=3: must be above warmup=3"):
        WarmupLinear(warmup=3, total=3)
