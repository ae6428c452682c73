"""A rule whose clients descend along clipped gradients of single samples, with noise."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from fedsplit.computing.steppable import RuleTensors, Seed, Steppable
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
        rule: rule that corrects gradients.
        defence: defence that clips gradients, and adds noise to them.
        objective: objective of the clients.
    """

    draws = per_sample = True

    def __init__(self, rule: LocalRule, defence: Defence, objective: Objective) -> None:
        self._rule, self._defence, self._objective = rule, defence, objective
        self.keeps_anchor, self.keeps = rule.keeps_anchor, rule.keeps  # type: ignore[misc]

    @override
    def gradients(self, batch: LocalBatch) -> LocalGradients:
        assert batch.decode is None, "heads go on from smashed data as they are"
        body, head, mean = batch.body, batch.head, self._objective.mean
        with torch.no_grad():
            z = body.forward(batch.x, seed=batch.seeds.body)
            at = batch.losses.targets(batch.y)
            loss = batch.losses.mean(head.forward(z, seed=batch.seeds.head, at=at), batch.y)
        count = len(body.trainable)

        def loss_of(weights: list[Weights], x: Tensor, y: Tensor) -> Tensor:
            outputs = _forward(head.module, weights[1], _forward(body.module, weights[0], x[None]))
            return mean(outputs, y[None])

        gradients = self._private([body, head], loss_of, batch.x, batch.y, noise=batch.seeds.rule)
        return LocalGradients(z, loss, gradients[:count], gradients[count:])

    @override
    def along(self, body: Steppable, x: Tensor, z: Tensor, dz: Tensor, seed: Seed) -> Sequence[Tensor]:
        def pull_of(weights: list[Weights], x: Tensor, dz: Tensor) -> Tensor:
            return (_forward(body.module, weights[0], x[None])[0] * dz).sum()

        sample_gradients = dz.view_as(z) * _samples(dz, seed)  # as a mean over samples, each has its share
        return self._private([body], pull_of, x, sample_gradients, noise=seed)

    @override
    def correct_gradients(self, gradients: Sequence[Tensor], model: Steppable) -> Sequence[Tensor]:
        return self._rule.correct_gradients(gradients, model)

    @override
    def receive(self, rule_tensors: RuleTensors, control_variates: Weights, steps: int) -> None:
        self._rule.receive(rule_tensors, control_variates, steps)

    @override
    def control_variates(self, rule_tensors: RuleTensors, steps: int) -> Weights:
        return self._rule.control_variates(rule_tensors, steps)

    def _private(
        self,
        models: Sequence[Steppable],
        loss: Callable[..., Tensor],
        *samples: Tensor,
        noise: Noise | Sequence[Noise],
    ) -> list[Tensor]:
        """Gradients of the mean loss over samples, for all that learns in some models, one after the other.

        Args:
            models: models of one client, or of many with a row for each.
            loss: loss of one sample, given the weights of each model and the sample's part of `samples`.
            samples: tensors `(b, ...)` of one client, `(k, b, ...)` of many.
            noise: noise of the step; for many clients, one each.
        """
        trainable = [{name: tensor.detach() for name, tensor in model.trainable.items()} for model in models]
        fixed = [
            {
                name: tensor
                for name, tensor in (*model.parameters.items(), *model.buffers.items())
                if name not in trainable_weights
            }
            for model, trainable_weights in zip(models, trainable, strict=True)
        ]

        def sum_of_client(weights: list[Weights], fixed_weights: list[Weights], *samples: Tensor) -> Tensor:
            def loss_of(weights_of_sample: list[Weights], *sample: Tensor) -> Tensor:
                return loss(
                    [{**a, **b} for a, b in zip(weights_of_sample, fixed_weights, strict=True)], *sample
                )

            return clipped_gradient_sum(loss_of, weights, *samples, clip=self._defence.gradient_clip)

        total = models[0].for_each(sum_of_client, trainable, fixed, *samples)
        if isinstance(noise, Noise):
            total = self._defence.perturb(total, noise)
        else:
            rows = zip(total.unbind(), noise, strict=True)
            total = torch.stack([self._defence.perturb(row, row_noise) for row, row_noise in rows])
        total = total / _samples(samples[0], noise)
        shapes = [
            tensor.shape if isinstance(noise, Noise) else tensor.shape[1:]
            for weights in trainable
            for tensor in weights.values()
        ]
        parts = torch.split(total, [prod(shape) for shape in shapes], dim=-1)
        return [
            gradients.reshape(*total.shape[:-1], *shape)
            for gradients, shape in zip(parts, shapes, strict=True)
        ]


def _forward(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    output: Tensor = functional_call(module, weights, (x,))
    return output


def _samples(x: Tensor, noise: Noise | Sequence[Noise]) -> int:
    """Samples of a batch, of one client or of each of many."""
    return x.shape[0 if isinstance(noise, Noise) else 1]
