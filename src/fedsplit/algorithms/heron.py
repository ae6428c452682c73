"""The algorithm HERON-SFL: CSE-FSL with zeroth-order clients."""

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.cse_fsl import CseFsl
from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.parties.local_rule import LocalBatch, LocalGradients, LocalRule, standard_normal


class ZerothOrder(LocalRule):
    """The mean of `(L(w + mu u) - L(w)) / mu u` over draws of u: forward passes alone, which keep nothing.

    Args:
        mu: distance that weights are moved along u, whose elements are standard normal.
        probes: number of draws of u in a step.
    """

    draws = needs_loss = True
    differentiates = False

    def __init__(self, *, mu: PositiveFloat, probes: PositiveInt) -> None:
        self.mu, self.probes, self.passes = mu, probes, 1 + probes

    @torch.no_grad()
    @override
    def gradients(self, batch: LocalBatch) -> LocalGradients:
        body, head, losses, y, seeds = batch.body, batch.head, batch.losses, batch.y, batch.seeds

        def forward_pass(*buffers: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
            z = body.forward(batch.x, seed=seeds.body, buffers=buffers[0])
            head_input = batch.decode(z) if batch.decode else z
            outputs = head.forward(head_input, seed=seeds.head, buffers=buffers[1], at=losses.targets(y))
            return z, losses.mean(outputs, y)

        weights = [*body.trainable.values(), *head.trainable.values()]
        initial = [weight.clone() for weight in weights]
        gradients = [torch.zeros_like(weight) for weight in weights]
        still = [body.frozen_buffers(), head.frozen_buffers()]
        z, loss = forward_pass(None, None)
        for probe in range(self.probes):
            direction = standard_normal(weights, seeds.rule, probe)
            for weight, start, u in zip(weights, initial, direction, strict=True):
                weight.copy_(start + self.mu * u)
            slope = (forward_pass(*still)[1] - loss) / (self.mu * self.probes)
            for total, u in zip(gradients, direction, strict=True):
                total.add_(slope.view(slope.shape + (1,) * (u.ndim - slope.ndim)) * u)
        for weight, start in zip(weights, initial, strict=True):
            weight.copy_(start)
        return LocalGradients(z, loss, gradients[: len(body.trainable)], gradients[len(body.trainable) :])


class Heron(CseFsl):
    """HERON-SFL: CSE-FSL whose clients find their gradients by forward passes alone.

    Source: Z. Kou, Z. Chen, J. Yang and C. Shen, "Lean Clients, Full Accuracy: Hybrid Zeroth- and First-Order
    Split Federated Learning", 2026 (arXiv 2601.09076).
    """

    own_rule = ZerothOrder
    label = "HERON-SFL"
    place = 14
