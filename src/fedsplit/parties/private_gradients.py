"""A rule whose clients descend along clipped gradients of single samples, with noise."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from fedsplit.computing.steppable import Kept, Seed, Steppable
from fedsplit.objectives.objective import Objective
from fedsplit.parties.local_rule import LocalBatch, LocalGradients, LocalRule
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Noise
from fedsplit.privacy.per_sample import clipped_gradient_sum
from fedsplit.state.weights import Weights


class PrivateGradients(LocalRule):
    """Another rule, whose gradients come from clipped gradients of single samples with noise.

    The noise is drawn from what stands for the seed of the rule in a step: a `Noise`, of many clients one
    each. Gradients are those of the mean over the samples of a batch. What the other rule makes of them sees
    samples through them alone.

    Args:
        rule: what corrects gradients.
        defence: says how they are clipped, and what noise they get.
        objective: of the clients.
    """

    draws = per_sample = True

    def __init__(self, rule: LocalRule, defence: Defence, objective: Objective) -> None:
        self._rule, self._defence, self._objective = rule, defence, objective
        self.anchored, self.keeps = rule.anchored, rule.keeps  # type: ignore[misc]

    @override
    def gradients(self, batch: LocalBatch) -> LocalGradients:
        assert batch.seen is None, "heads go on from smashed data as they are"
        body, head, mean = batch.body, batch.head, self._objective.mean
        with torch.no_grad():
            z = body.forward(batch.x, seed=batch.seeds.body)
            at = batch.losses.targets(batch.y)
            loss = batch.losses.mean(head.forward(z, seed=batch.seeds.head, at=at), batch.y)
        count = len(body.trained)

        def loss_of(weights: list[Weights], x: Tensor, y: Tensor) -> Tensor:
            outputs = _passed(head.module, weights[1], _passed(body.module, weights[0], x[None]))
            return mean(outputs, y[None])

        found = self._private([body, head], loss_of, batch.x, batch.y, noise=batch.seeds.rule)
        return LocalGradients(z, loss, found[:count], found[count:])

    @override
    def along(self, body: Steppable, x: Tensor, z: Tensor, dz: Tensor, seed: Seed) -> Sequence[Tensor]:
        def pull_of(weights: list[Weights], x: Tensor, dz: Tensor) -> Tensor:
            return (_passed(body.module, weights[0], x[None])[0] * dz).sum()

        of_samples = dz.view_as(z) * _samples(dz, seed)  # as a mean over samples, each has its share
        return self._private([body], pull_of, x, of_samples, noise=seed)

    @override
    def correct_gradients(self, gradients: Sequence[Tensor], model: Steppable) -> Sequence[Tensor]:
        return self._rule.correct_gradients(gradients, model)

    @override
    def receive(self, kept: Kept, control_variates: Weights, steps: int) -> None:
        self._rule.receive(kept, control_variates, steps)

    @override
    def control_variates(self, kept: Kept, steps: int) -> Weights:
        return self._rule.control_variates(kept, steps)

    def _private(
        self,
        models: Sequence[Steppable],
        loss: Callable[..., Tensor],
        *samples: Tensor,
        noise: Noise | Sequence[Noise],
    ) -> list[Tensor]:
        """Gradients of the mean loss over samples, for all that learns in some models, one after the other.

        Args:
            models: of one client, or of many with a row each.
            loss: of one sample, from the weights of each model and from what `samples` has of the sample.
            samples: `(b, ...)`, of many clients `(k, b, ...)`.
            noise: of the step; of many clients, one each.
        """
        trained = [{name: each.detach() for name, each in model.trained.items()} for model in models]
        fixed = [
            {
                name: each
                for name, each in (*model.parameters.items(), *model.buffers.items())
                if name not in own
            }
            for model, own in zip(models, trained, strict=True)
        ]

        def sum_of_client(own: list[Weights], fixed: list[Weights], *samples: Tensor) -> Tensor:
            def loss_of(own: list[Weights], *sample: Tensor) -> Tensor:
                return loss([{**a, **b} for a, b in zip(own, fixed, strict=True)], *sample)

            return clipped_gradient_sum(loss_of, own, *samples, clip=self._defence.gradient_clip)

        total = models[0].for_each(sum_of_client, trained, fixed, *samples)
        if isinstance(noise, Noise):
            total = self._defence.perturbed(total, noise)
        else:
            rows = zip(total.unbind(), noise, strict=True)
            total = torch.stack([self._defence.perturbed(row, own) for row, own in rows])
        total = total / _samples(samples[0], noise)
        shapes = [
            each.shape if isinstance(noise, Noise) else each.shape[1:]
            for own in trained
            for each in own.values()
        ]
        parts = torch.split(total, [prod(shape) for shape in shapes], dim=-1)
        return [part.reshape(*total.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def _passed(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    output: Tensor = functional_call(module, weights, (x,))
    return output


def _samples(x: Tensor, noise: Noise | Sequence[Noise]) -> int:
    """Samples of a batch, of one client or of each of many."""
    return x.shape[0 if isinstance(noise, Noise) else 1]
