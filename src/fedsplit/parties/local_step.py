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
    Decode,
    Extra,
    LocalBatch,
    LocalRule,
    StepSeeds,
    head_gradients,
    with_extra,
)

TailLosses = TypeVar("TailLosses")


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
    tail: Callable[[Tensor], tuple[TailLosses, Tensor]],
    z: Tensor,
    *,
    learning_rate_factor: float,
    seed: Seed,
) -> tuple[TailLosses, Tensor]:
    """Step `trunk` between the cuts of a model on smashed data; losses that `tail` returns, and cut gradient.

    Args:
        trunk: model between the cuts.
        tail: function from the trunk's outputs to losses and the gradient with respect to these outputs.
        z: smashed data.
        learning_rate_factor: factor of the learning rate that the schedule gives.
        seed: seed of what the trunk draws.
    """
    z = z.detach().requires_grad_()
    h = trunk.forward(z, seed=seed)
    losses, along = tail(h.detach())
    dz, *gradients = gradients_along([(h, along.view_as(h))], [z, *trunk.trainable.values()])
    trunk.descend(gradients, learning_rate_factor)
    return losses, dz


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
    """Step `body` along the cut gradient `dz`, and along an extra gradient.

    Args:
        body: the client model.
        x: inputs.
        z: outputs of its forward pass, graph attached.
        dz: cut gradient of the mean loss.
        rule: rule that the body descends along.
        learning_rate_factor: factor of the learning rate that the schedule gives.
        extra: gradient that the client adds to `dz`.
        seed: seed of what the rule draws.
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
    decode: Decode = None,
    extra: Extra = None,
) -> Outputs:
    """A whole step where body and head sit on one machine: smashed data and, of a trained head, the loss.

    Args:
        body: the client model.
        head: model behind the client model.
        losses: losses of the batch.
        x: inputs.
        y: labels.
        rule: rule that both descend along.
        estimator: estimator that makes cut gradients of a head that is left as it is; None: the client trains
            the head too, and both descend along its own loss.
        learning_rate_factor: factor of the learning rate that the schedule gives.
        seeds: seeds of what body, head and rule draw.
        decode: function from smashed data to what the head takes; None: it takes them as they are.
        extra: gradient of smashed data beside that of the loss.
    """
    if estimator is None:
        gradients = rule.gradients(LocalBatch(body, head, losses, x, y, seeds, decode, extra))
        body.descend(rule.correct_gradients(gradients.body, body), learning_rate_factor)
        head.descend(rule.correct_gradients(gradients.head, head), learning_rate_factor)
        return gradients.z, gradients.loss
    z = body.forward(x, seed=seeds.body)
    smashed = z.detach()
    decoded = smashed if decode is None else decode(smashed)
    dz = losses.per_term(estimator.estimate(head, losses, decoded, y, seed=seeds.head).detach(), y)
    factor = learning_rate_factor
    descend_body(body, x, z, dz, rule=rule, learning_rate_factor=factor, extra=extra, seed=seeds.rule)
    return (smashed,)


Slopes = Callable[[Tensor, Sequence[int]], Tensor]
"""Answers seeds once the cut gradient is there; see `LocalRule.slopes`."""


def forward_alone(body: Steppable, x: Tensor, *, rule: LocalRule, seed: Seed) -> tuple[Tensor, Slopes]:
    """Smashed data, and the function that answers seeds; nothing is kept for a backward pass."""
    with torch.no_grad():
        z = body.forward(x, seed=seed, buffers=body.frozen_buffers())
    return z, partial(rule.slopes, body, x, z, seed=seed)


Descend = Callable[[Tensor, float], object]
"""Function that ends a step whose smashed data were sent, given cut gradient and the schedule's factor."""


def forward_body(
    body: Steppable, x: Tensor, *, rule: LocalRule, seeds: StepSeeds, extra: Extra = None
) -> tuple[Tensor, Descend]:
    """Smashed data, and the function that takes their cut gradient; `body` stays as it is until then."""
    buffers = body.frozen_buffers()
    z = body.forward(x, seed=seeds.body, buffers=buffers)

    def descend(dz: Tensor, factor: float) -> None:
        descend_body(body, x, z, dz, rule=rule, learning_rate_factor=factor, extra=extra, seed=seeds.rule)
        body.move_buffers(buffers)

    return z.detach(), descend
