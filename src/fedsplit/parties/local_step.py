"""The step of a split model, in its three moves; every algorithm and every engine is made of these.

Forward through the body gives smashed data `z`; a head turns `(z, y)` into the cut gradient `dz`; the
body descends along `dz`. Where body and head sit on one machine the moves follow each other; where the
network lies between, `z` and `dz` are what crosses it. The arithmetic is the same.

All of it is for one client, or for K clients at once, whose tensors then have a row a client: `z (K, b,
...)`, `y (K, b, ...)`, a loss each. Which it is, the `losses` that are given say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from fedsplit.computing.captured_steps import Outputs
from fedsplit.computing.directions import gradients_along
from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.objectives.losses import Losses
from fedsplit.parties.local_rule import (
    UNSEEDED,
    Extra,
    LocalBatch,
    LocalRule,
    Seen,
    StepSeeds,
    head_gradients,
    with_extra,
)

Found = TypeVar("Found")


@dataclass(frozen=True)
class HeadStep:
    """Mean loss of the batch (a 0-d tensor, or one of each client), and its gradient with respect to `z`."""

    loss: Tensor
    dz: Tensor


def train_head(
    head: Steppable,
    losses: Losses,
    z: Tensor,
    y: Tensor,
    *,
    learning_rate_factor: float | Tensor,
    seed: Seed,
    rule: LocalRule | None = None,
) -> HeadStep:
    """Step `head` on smashed data and labels; the cut gradient is of the loss before the step.

    A client steps the tail of its model so, on the trunk's outputs, and by its rule.
    """
    loss, dz, gradients = head_gradients(head, losses, z, y, seed=seed)
    head.descend(rule.correct_gradients(gradients, head) if rule else gradients, learning_rate_factor)
    return HeadStep(loss, dz)


def train_trunk(
    trunk: Steppable,
    tail: Callable[[Tensor], tuple[Found, Tensor]],
    z: Tensor,
    *,
    learning_rate_factor: float,
    seed: Seed,
) -> tuple[Found, Tensor]:
    """Step `trunk` between the cuts of a model on smashed data; losses as `tail` gives them, cut gradient.

    Args:
        trunk: what is between the cuts.
        tail: takes the trunk's outputs; gives losses, and the gradient with respect to these outputs.
        z: smashed data.
        learning_rate_factor: of the schedule.
        seed: of what the trunk draws.
    """
    z = z.detach().requires_grad_()
    h = trunk.forward(z, seed=seed)
    found, along = tail(h.detach())
    dz, *gradients = gradients_along([(h, along.view_as(h))], [z, *trunk.trained.values()])
    trunk.descend(gradients, learning_rate_factor)
    return found, dz


def descend_body(
    body: Steppable,
    x: Tensor,
    z: Tensor,
    dz: Tensor,
    *,
    rule: LocalRule,
    learning_rate_factor: float | Tensor,
    extra: Extra = None,
    seed: Seed = None,
) -> None:
    """Step `body` along the cut gradient `dz`, and what is extra.

    Args:
        body: the client model.
        x: inputs.
        z: what its forward pass made of them, graph attached.
        dz: the cut gradient.
        rule: what it descends along.
        learning_rate_factor: of the schedule.
        extra: gradient beside `dz`.
        seed: of what the rule draws.
    """
    gradients = rule.along(body, x, z, with_extra(body, x, z, dz, extra), seed)
    body.descend(rule.correct_gradients(gradients, body), learning_rate_factor)


def local_step(
    body: Steppable,
    head: Steppable,
    losses: Losses,
    x: Tensor,
    y: Tensor,
    *,
    rule: LocalRule,
    estimator: GradientEstimator | None,
    learning_rate_factor: float | Tensor,
    seeds: StepSeeds = UNSEEDED,
    seen: Seen = None,
    extra: Extra = None,
) -> Outputs:
    """A whole step where body and head sit on one machine: smashed data and, of a trained head, the loss.

    Args:
        body: the client model.
        head: what is behind it.
        losses: of the batch.
        x: inputs.
        y: labels.
        rule: what both descend along.
        estimator: makes cut gradients of a head that is left as it is; None: the head is trained too, and
            both go along its own loss.
        learning_rate_factor: of the schedule.
        seeds: of what is drawn.
        seen: smashed data as the head sees them; None: as they are.
        extra: gradient of smashed data beside that of the loss.
    """
    if estimator is None:
        found = rule.gradients(LocalBatch(body, head, losses, x, y, seeds, seen, extra))
        body.descend(rule.correct_gradients(found.body, body), learning_rate_factor)
        head.descend(rule.correct_gradients(found.head, head), learning_rate_factor)
        return found.z, found.loss
    z = body.forward(x, seed=seeds.body)
    smashed = z.detach()
    decoded = smashed if seen is None else seen(smashed)
    dz = losses.per_term(estimator.estimate(head, losses, decoded, y, seed=seeds.head).detach(), y)
    factor = learning_rate_factor
    descend_body(body, x, z, dz, rule=rule, learning_rate_factor=factor, extra=extra, seed=seeds.rule)
    return (smashed,)


Slopes = Callable[[Tensor, Sequence[int]], Tensor]
"""Answers seeds once the cut gradient is there; see `LocalRule.slopes`."""


def forward_alone(body: Steppable, x: Tensor, *, rule: LocalRule, seed: Seed) -> tuple[Tensor, Slopes]:
    """Smashed data, and what answers seeds; nothing is kept for a backward pass."""
    with torch.no_grad():
        z = body.forward(x, seed=seed, buffers=body.frozen_buffers())
    return z, partial(rule.slopes, body, x, z, seed=seed)


Descend = Callable[[Tensor, float], object]
"""Function that ends a step whose smashed data were sent, given cut gradient and the schedule's factor."""


def forward_body(
    body: Steppable, x: Tensor, *, rule: LocalRule, seeds: StepSeeds, extra: Extra = None
) -> tuple[Tensor, Descend]:
    """Smashed data, and what the cut gradient is to be given to; `body` stays as it is until then."""
    buffers = body.frozen_buffers()
    z = body.forward(x, seed=seeds.body, buffers=buffers)

    def descend(dz: Tensor, factor: float) -> None:
        descend_body(body, x, z, dz, rule=rule, learning_rate_factor=factor, extra=extra, seed=seeds.rule)
        body.move_buffers(buffers)

    return z.detach(), descend
