"""The mathematics of a client's local step: what its models descend along."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fedsplit.computing.directions import gradients_along
from fedsplit.computing.steppable import RuleTensors, Seed, Steppable
from fedsplit.objectives.losses import Losses
from fedsplit.randomness import generator
from fedsplit.state.weights import Weights

Decode: TypeAlias = Callable[[Tensor], Tensor] | None
"""Smashed data as the head sees them; None: as they are."""
Extra: TypeAlias = Callable[[Tensor, Tensor], Tensor] | None
"""Term added to the cut gradient, a function of one client's inputs and smashed data; None adds nothing."""


@dataclass(frozen=True)
class StepSeeds:
    """Seeds of what body and head draw in a step, and of what its rule draws."""

    body: Seed = None
    head: Seed = None
    rule: Seed = None


UNSEEDED = StepSeeds()


@dataclass(frozen=True)
class LocalBatch:
    """A batch at a client that trains client model and head on it; see `local_step` for each."""

    body: Steppable
    head: Steppable
    losses: Losses
    x: Tensor
    y: Tensor
    seeds: StepSeeds = UNSEEDED
    decode: Decode = None
    extra: Extra = None


@dataclass(frozen=True)
class LocalGradients:
    """Directions that body and head descend along, in the order of their `trained`.

    Args:
        z: smashed data, without a graph.
        loss: mean loss of the batch before the step, a 0-d tensor, or one of each client.
        body: directions of the client model.
        head: directions of the model behind it.
    """

    z: Tensor
    loss: Tensor
    body: Sequence[Tensor]
    head: Sequence[Tensor]


class LocalRule:
    """Gradients of the loss as they are, and what every other rule changes of that.

    A rule is for one client, or for K clients at once, whose tensors then have a row a client.
    """

    keeps_anchor: ClassVar[bool] = False
    """True if clients keep the weights that they received last, as `Steppable.anchor`."""
    draws: ClassVar[bool] = False
    """True if `gradients` draws random numbers; it then gets a seed for each step."""
    needs_loss: ClassVar[bool] = False
    """True if it needs a loss at the client, and cannot use cut gradients that others give."""
    per_sample: ClassVar[bool] = False
    """True if it takes gradients of single samples and adds noise to them: it then gets a `Noise` for each
    step in the place of a seed."""
    differentiates: ClassVar[bool] = True
    """True if it uses gradients of smashed data, to which something can be added."""
    keeps: ClassVar[tuple[str, ...]] = ()
    """Names of what clients keep for it from round to round, as `Steppable.rule_tensors`; with these it has
    control variates: `receive` and `control_variates`."""
    answers_seeds: ClassVar[bool] = False
    """True if it takes forward passes alone, on one client model that all clients share: they answer seeds by
    `slopes`, and all step along `estimate`."""
    probes = 0
    """Number of random directions in a step."""
    passes = 3
    """Forward passes that take as long as a local step, for timelines; a backward pass is two."""

    def gradients(self, batch: LocalBatch) -> LocalGradients:
        """Gradients of the head's loss, where the head is trained at the client."""
        body, head, losses, seeds = batch.body, batch.head, batch.losses, batch.seeds
        z = body.forward(batch.x, seed=seeds.body)
        parameters = list(body.trainable.values())
        if batch.decode is not None:
            decoded = batch.decode(z.detach())
            head_loss, dz, head_gradient = head_gradients(head, losses, decoded, batch.y, seed=seeds.head)
            dz = with_extra(body, batch.x, z, dz, batch.extra)
            return LocalGradients(z.detach(), head_loss, gradients_of(z, parameters, dz), head_gradient)
        version = z._version
        loss = losses.mean(head.forward(z, seed=seeds.head, at=losses.targets(batch.y)), batch.y)
        if z._version != version:
            raise AssertionError("a head must leave smashed data as they are: they may still be uploaded")
        outputs: list[tuple[Tensor, Tensor | None]] = [(loss.sum(), None)]
        if batch.extra is not None:
            outputs.append((z, body.for_each(batch.extra, batch.x, z.detach())))
        gradients = _along(outputs, [*parameters, *head.trainable.values()])
        return LocalGradients(
            z.detach(), loss.detach(), gradients[: len(parameters)], gradients[len(parameters) :]
        )

    def along(self, body: Steppable, x: Tensor, z: Tensor, dz: Tensor, seed: Seed) -> Sequence[Tensor]:
        """Gradients of the client model along cut gradients that others give.

        Args:
            body: the client model.
            x: inputs.
            z: outputs of its forward pass, graph attached.
            dz: cut gradient of the mean loss.
            seed: seed of the step.
        """
        return gradients_of(z, list(body.trainable.values()), dz)

    def correct_gradients(self, gradients: Sequence[Tensor], model: Steppable) -> Sequence[Tensor]:
        """Directions that a model descends along, in the order of its `trained`."""
        return gradients

    def slopes(
        self, body: Steppable, x: Tensor, z: Tensor, dz: Tensor, seeds: Sequence[int], *, seed: Seed
    ) -> Tensor:
        """Change of the loss along the direction of each seed, `(P,)`, of many clients `(K, P)`.

        Args:
            body: the client model; it is left as it is.
            x: inputs.
            z: smashed data of these inputs.
            dz: cut gradient at these smashed data.
            seeds: seeds of directions, the same for all clients.
            seed: seed of what body draws.
        """
        raise AssertionError("clients with this rule answer no seeds")

    def estimate(self, body: Steppable, seeds: Sequence[int], slopes: Tensor) -> Sequence[Tensor]:
        """Gradient that slopes `(P,)` along the directions of seeds make, in the order of `trained`."""
        raise AssertionError("clients with this rule answer no seeds")

    def receive(self, rule_tensors: RuleTensors, control_variates: Weights, steps: int) -> None:
        """Take over the server's control variates at the beginning of a round.

        Args:
            rule_tensors: tensors that the rule keeps for one model of one client.
            control_variates: the server's control variates by parameter, those of other models included.
            steps: local steps of the client in a round.
        """
        raise AssertionError("this rule has no control variates")

    def control_variates(self, rule_tensors: RuleTensors, steps: int) -> Weights:
        """Control variates of one model of one client, for the server; arguments as of `receive`."""
        raise AssertionError("this rule has no control variates")


def head_gradients(
    head: Steppable, losses: Losses, z: Tensor, y: Tensor, *, seed: Seed
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """Mean loss of a batch, and its gradients with respect to smashed data and to the head's parameters."""
    z = z.detach().requires_grad_()
    loss = losses.mean(head.forward(z, seed=seed, at=losses.targets(y)), y)
    dz, *gradients = torch.autograd.grad(loss.sum(), [z, *head.trainable.values()])
    return loss.detach(), dz, gradients


def gradients_of(
    output: Tensor, parameters: Sequence[Tensor], along: Tensor | None = None
) -> Sequence[Tensor]:
    """Gradients of `output` along `along`, with respect to parameters; none where all of them are frozen."""
    return _along([(output, along if along is None else along.view_as(output))], parameters)


def _along(outputs: Sequence[tuple[Tensor, Tensor | None]], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """Gradients as `gradients_along` gives; none where all parameters are frozen."""
    return gradients_along(outputs, parameters) if parameters else ()


def with_extra(body: Steppable, x: Tensor, z: Tensor, dz: Tensor, extra: Extra) -> Tensor:
    """The cut gradient `dz`, and what a client adds to it by itself."""
    return dz if extra is None else dz.view_as(z) + body.for_each(extra, x, z.detach())


def standard_normal(like: Sequence[Tensor], seed: Seed, number: int) -> list[Tensor]:
    """Standard normal numbers in the shapes of some tensors; of many clients, each client's own in its row.

    Args:
        like: tensors of one client, or with a row for each client.
        seed: seed of the step: `StepSeeds.rule`.
        number: number of the draw in the step.
    """
    if isinstance(seed, int):
        draw = generator(seed, "direction", step=number)
        return [
            torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype).to(tensor.device) for tensor in like
        ]
    rows = [
        standard_normal([tensor[row] for tensor in like], seed_of_row, number)
        for row, seed_of_row in enumerate(seed)
    ]
    return [torch.stack(tensors) for tensors in zip(*rows, strict=True)]
