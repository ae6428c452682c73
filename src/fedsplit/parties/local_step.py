"""The step of a split model, in its three moves; every algorithm and every engine is made of these.

Forward through the body gives smashed data `z`; a head turns `(z, y)` into the cut gradient `dz`; the
body descends along `dz`. Where body and head sit on one machine the moves follow each other; where the
network lies between, `z` and `dz` are what crosses it. The arithmetic is the same.

All of it is for one client, or for K clients at once, whose tensors then have a row a client: `z (K, b,
...)`, `y (K, b, ...)`, a loss each. Which it is, the `losses` that are given say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsplit.computing.captured_steps import Outputs
from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.objectives.losses import Losses


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
) -> HeadStep:
    """Step `head` on smashed data and labels; the cut gradient is of the loss before the step."""
    z = z.detach().requires_grad_()
    loss = losses.mean(head.forward(z, seed=seed), y)
    dz, *gradients = torch.autograd.grad(loss.sum(), [z, *head.trained.values()])
    head.descend(gradients, learning_rate_factor)
    return HeadStep(loss.detach(), dz)


def train_both(
    body: Steppable,
    head: Steppable,
    losses: Losses,
    z: Tensor,
    y: Tensor,
    *,
    learning_rate_factor: float | Tensor,
    seed: Seed,
) -> Tensor:
    """Step body and head at once, where both sit on one machine; the loss of before the step.

    The arithmetic is that of `train_head` and `descend_body`; the graph is gone through in one go.

    Args:
        body: the client model.
        head: what is trained behind it.
        losses: of the batch.
        z: what the forward pass through `body` gave, graph attached.
        y: labels.
        learning_rate_factor: of the schedule.
        seed: of what the head draws.
    """
    version = z._version
    loss = losses.mean(head.forward(z, seed=seed), y)
    if z._version != version:
        raise AssertionError("a head must leave smashed data as they are: they may still be uploaded")
    own = list(body.trained.values())
    gradients = _gradients(loss.sum(), [*own, *head.trained.values()])
    body.descend(gradients[: len(own)], learning_rate_factor)
    head.descend(gradients[len(own) :], learning_rate_factor)
    return loss.detach()


def descend_body(body: Steppable, z: Tensor, dz: Tensor, *, learning_rate_factor: float | Tensor) -> None:
    """Step `body` along the cut gradient `dz`; `z` is what its forward pass gave, graph attached."""
    gradients = _gradients(z, list(body.trained.values()), dz)
    body.descend(gradients, learning_rate_factor)


def _gradients(output: Tensor, parameters: Sequence[Tensor], along: Tensor | None = None) -> Sequence[Tensor]:
    """Of `output` along `along`, with respect to parameters; none where all of them are frozen."""
    if not parameters:
        return ()
    return torch.autograd.grad(output, parameters, along if along is None else along.view_as(output))


def local_step(
    body: Steppable,
    head: Steppable,
    losses: Losses,
    x: Tensor,
    y: Tensor,
    *,
    estimator: GradientEstimator,
    train_head_too: bool,
    learning_rate_factor: float | Tensor,
    seeds: tuple[Seed, Seed] = (None, None),
    seen: Callable[[Tensor], Tensor] | None = None,
) -> Outputs:
    """A whole step where body and head sit on one machine: smashed data and, of a trained head, the loss.

    Args:
        body: the client model.
        head: what is behind it.
        losses: of the batch.
        x: inputs.
        y: labels.
        estimator: makes cut gradients of a head that is not trained.
        train_head_too: descend along the head's own loss and train the head with it; else descend along
            the estimate, and leave the head as it is.
        learning_rate_factor: of the schedule.
        seeds: of what body and head draw.
        seen: smashed data as the head sees them; None: as they are.
    """
    z = body.forward(x, seed=seeds[0])
    smashed = z.detach()
    if train_head_too and seen is None:
        loss = train_both(body, head, losses, z, y, learning_rate_factor=learning_rate_factor, seed=seeds[1])
        return smashed, loss
    decoded = smashed if seen is None else seen(smashed)
    trained: Outputs = ()
    if train_head_too:
        done = train_head(head, losses, decoded, y, learning_rate_factor=learning_rate_factor, seed=seeds[1])
        dz, trained = done.dz, (done.loss,)
    else:
        dz = losses.per_term(estimator.estimate(head, losses, decoded, y, seed=seeds[1]).detach(), y)
    descend_body(body, z, dz, learning_rate_factor=learning_rate_factor)
    return smashed, *trained


Descend = Callable[[Tensor, float], object]
"""Ends a step whose smashed data were sent: takes the cut gradient and the factor of the schedule."""


def forward_body(body: Steppable, x: Tensor, *, seed: Seed) -> tuple[Tensor, Descend]:
    """Smashed data, and what the cut gradient is to be given to; `body` stays as it is until then."""
    buffers = body.frozen_buffers()
    z = body.forward(x, seed=seed, buffers=buffers)

    def descend(dz: Tensor, learning_rate_factor: float) -> None:
        descend_body(body, z, dz, learning_rate_factor=learning_rate_factor)
        body.move_buffers(buffers)

    return z.detach(), descend
