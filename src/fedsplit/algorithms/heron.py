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
        mu: how far weights are moved along u, whose elements are standard normal.
        probes: draws of u in a step.
    """

    draws = needs_loss = True
    differentiates = False

    def __init__(self, *, mu: PositiveFloat, probes: PositiveInt) -> None:
        self.mu, self.probes, self.passes = mu, probes, 1 + probes

    @torch.no_grad()
    @override
    def gradients(self, batch: LocalBatch) -> LocalGradients:
        body, head, seeds = batch.body, batch.head, batch.seeds

        def passed(*buffers: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
            z = body.forward(batch.x, seed=seeds.body, buffers=buffers[0])
            seen = batch.seen(z) if batch.seen else z
            at = batch.losses.targets(batch.y)
            outputs = head.forward(seen, seed=seeds.head, buffers=buffers[1], at=at)
            return z, batch.losses.mean(outputs, batch.y)

        weights = [*body.trained.values(), *head.trained.values()]
        first, found = [each.clone() for each in weights], [torch.zeros_like(each) for each in weights]
        still = [body.frozen_buffers(), head.frozen_buffers()]
        z, loss = passed(None, None)
        for probe in range(self.probes):
            drawn = standard_normal(weights, seeds.rule, probe)
            for each, start, u in zip(weights, first, drawn, strict=True):
                each.copy_(start + self.mu * u)
            slope = (passed(*still)[1] - loss) / (self.mu * self.probes)
            for total, u in zip(found, drawn, strict=True):
                total.add_(slope.view(slope.shape + (1,) * (u.ndim - slope.ndim)) * u)
        for each, start in zip(weights, first, strict=True):
            each.copy_(start)
        return LocalGradients(z, loss, found[: len(body.trained)], found[len(body.trained) :])


class Heron(CseFsl):
    """HERON-SFL: CSE-FSL whose clients find their gradients by forward passes alone.

    Source: Z. Kou, Z. Chen, J. Yang and C. Shen, "Lean Clients, Full Accuracy: Hybrid Zeroth- and First-Order
    Split Federated Learning", 2026 (arXiv 2601.09076).
    """

    label = "HERON-SFL"
    place = 14
