"""The step of a split model, in its three moves; every algorithm is made of these.

Forward through the body gives smashed data `z`; a head turns `(z, y)` into the cut gradient `dz`; the
body descends along `dz`. Where body and head sit on one machine the moves follow each other; where the
network lies between, `z` and `dz` are what crosses it. The arithmetic is the same.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.models.model_state import ModelState


@dataclass(frozen=True)
class HeadStep:
    """Mean loss of the batch (a 0-d tensor), and the gradient of it with respect to `z`."""

    loss: Tensor
    dz: Tensor


def train_head(head: ModelState, z: Tensor, y: Tensor, *, learning_rate_factor: float, seed: int) -> HeadStep:
    """Step `head` on smashed data and labels; the cut gradient is of the loss before the step."""
    z = z.detach().requires_grad_()
    loss = F.cross_entropy(head.forward(z, seed=seed), y)
    dz, *gradients = torch.autograd.grad(loss, [z, *head.parameters.values()])
    head.descend(gradients, learning_rate_factor)
    return HeadStep(loss.detach(), dz)


def descend_body(body: ModelState, z: Tensor, dz: Tensor, *, learning_rate_factor: float) -> None:
    """Step `body` along the cut gradient `dz`; `z` is what its forward pass gave, graph attached."""
    gradients = torch.autograd.grad(z, list(body.parameters.values()), dz.view_as(z))
    body.descend(gradients, learning_rate_factor)
