"""The client worker: its shard, its client model, its head, and the verbs it answers to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor

from fedsplit.computing.model_state import ModelState
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.graphed_steps import GraphedSteps
from fedsplit.parties.local_rule import StepSeeds
from fedsplit.parties.local_step import (
    Descend,
    Slopes,
    forward_alone,
    forward_body,
    local_step,
    train_head,
)
from fedsplit.parties.messages import BatchLoss, LocalWork, Part, Upload
from fedsplit.randomness import seed_of
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class _Pending:
    """A forward pass that waits for its cut gradient: nothing of the client has changed yet."""

    round: int
    step: int
    y: Tensor
    goes_on: Descend | Slopes


class ClientWorker:
    """A client with its shard of the data, its body and its head.

    Args:
        client: number of the client.
        blueprint: parts that the client is made of.
    """

    def __init__(self, client: int, blueprint: Blueprint) -> None:
        self.client, self._batches = client, blueprint.batches(client)
        recorder, self._rule = blueprint.recorder, blueprint.rule
        state = partial(
            ModelState,
            optimizer=blueprint.optimizer,
            recorder=recorder,
            keeps_anchor=self._rule.keeps_anchor,
            keeps=self._rule.keeps,
        )
        self._body = body = state(blueprint.body)
        self._head = head = state(blueprint.head) if blueprint.head else None
        self._objective, self._estimator = blueprint.objective, blueprint.estimator
        self._schedule, self._seed = blueprint.schedule, blueprint.seed
        self._blueprint = blueprint
        self._model_names = blueprint.models_of
        self._pending: _Pending | None = None
        self._graphed_steps: GraphedSteps | None = None
        if recorder:
            # of the models, not of the worker: what holds itself is not freed when it is dropped
            heads = (lambda _: head) if head else None
            self._graphed_steps = GraphedSteps(
                recorder, lambda _: body, heads, blueprint.objective, blueprint.estimator, rule=self._rule
            )

    @property
    def _own_head(self) -> ModelState:
        if self._head is None:
            raise AssertionError("this algorithm's clients have no head")
        return self._head

    def install(self, part: Part, weights: Weights) -> None:
        """Take over weights; the optimizers' state stays."""
        if part == "control":
            for model in self._models():
                self._rule.receive(model.rule_tensors, weights, self._batches.steps)
            return
        for model in self._models_of(part):
            model.load(weights)

    def weights(self, part: Part) -> Weights:
        """Copies of the weights of a part."""
        if part == "control":
            steps = self._batches.steps
            by_model = [self._rule.control_variates(model.rule_tensors, steps) for model in self._models()]
        else:
            by_model = [model.weights() for model in self._models_of(part)]
        return {name: tensor for weights in by_model for name, tensor in weights.items()}

    def _models(self) -> list[ModelState]:
        return [self._body, *([self._head] if self._head else [])]

    def _models_of(self, part: Part) -> list[ModelState]:
        return [self._body if name == "body" else self._own_head for name in self._model_names(part)]

    def forward(self, round: int, step: int) -> Upload | None:
        """Smashed data and labels of a local step, None if the round has no such step; changes no state."""
        if step >= self._batches.steps:
            return None
        x, y = self._batches.batch(round, step)
        seed = self._seed_of("dropout of the client", round, step)
        goes_on: Descend | Slopes
        if self._graphed_steps:
            (z,) = self._graphed_steps.forward(None, x)
            goes_on = partial(self._graphed_steps.backward, None, x)
        elif self._rule.answers_seeds:
            z, goes_on = forward_alone(self._body, x, rule=self._rule, seed=seed)
        else:
            seeds = StepSeeds(body=seed, rule=self._blueprint.rule_seed(self.client, round, step))
            extra = self._blueprint.extra
            z, goes_on = forward_body(self._body, x, rule=self._rule, seeds=seeds, extra=extra)
        self._pending = _Pending(round, step, y, goes_on)
        return self._blueprint.release(Upload(self.client, step, z, y), round)

    def backward(self, round: int, step: int, dz: Tensor) -> None:
        """Descend along the cut gradient of the last `forward`, and move the running statistics."""
        pending = self._pending_pass(round, step)
        cast(Descend, pending.goes_on)(dz[: len(pending.y)], self._schedule.at(round, step))
        self._pending = None

    def probe(self, round: int, step: int, dz: Tensor, seeds: Sequence[int]) -> Tensor:
        """Slopes `(P,)` along the directions that seeds draw, at the cut gradient of the last `forward`."""
        slopes = cast(Slopes, self._pending_pass(round, step).goes_on)(dz, seeds)
        self._pending = None
        return slopes

    def move(self, round: int, step: int, seeds: Sequence[int], slopes: Tensor) -> None:
        """Step the client model along the mean of directions, given slopes `(P,)` summed over all clients."""
        self._pending = None
        estimate = self._rule.estimate(self._body, seeds, slopes)
        self._body.descend(estimate, self._schedule.at(round, step))

    def step_tail(self, round: int, step: int, h: Tensor) -> tuple[BatchLoss, Tensor]:
        """Step the tail on outputs of the trunk for the last `forward`; the loss, and the gradient at `h`."""
        y = self._pending_pass(round, step).y
        tail_step = train_head(
            self._own_head,
            self._objective,
            h,
            y,
            learning_rate_factor=self._schedule.at(round, step),
            seed=self._seed_of("dropout of the tail", round, step),
            rule=self._rule,
        )
        return BatchLoss([self.client], tail_step.loss[None], self._objective.counts(y)), tail_step.dz

    def _pending_pass(self, round: int, step: int) -> _Pending:
        if self._pending is None or (self._pending.round, self._pending.step) != (round, step):
            raise AssertionError(
                f"client {self.client} has no forward pass of step {step} of round {round} waiting"
            )
        return self._pending

    def train_local(self, round: int, work: LocalWork, losses: list[BatchLoss]) -> Iterator[Upload]:
        """Train for the local epochs of a round while uploads are read; adds to `losses`."""
        self._pending = None
        for step, x, y in self._batches.round(round):
            factor = self._schedule.at(round, step)
            if self._graphed_steps:
                z, *losses_of_step = self._graphed_steps.train(None, work.train_head, x, y, factor)
            else:
                z, *losses_of_step = local_step(
                    self._body,
                    self._own_head,
                    self._objective,
                    x,
                    y,
                    rule=self._rule,
                    estimator=None if work.train_head else self._estimator,
                    learning_rate_factor=factor,
                    seeds=StepSeeds(
                        self._seed_of("dropout of the client", round, step),
                        self._seed_of("dropout of the head", round, step),
                        self._blueprint.rule_seed(self.client, round, step),
                    ),
                    decode=partial(self._head_input, y=y, round=round, step=step)
                    if self._blueprint.head_sees
                    else None,
                    extra=self._blueprint.extra,
                )
            losses += [
                BatchLoss([self.client], loss[None], self._objective.counts(y)) for loss in losses_of_step
            ]
            if work.uploads(self.client, step):
                yield self._blueprint.release(Upload(self.client, step, z, y), round)

    def _head_input(self, z: Tensor, *, y: Tensor, round: int, step: int) -> Tensor:
        return self._blueprint.head_input(Upload(self.client, step, z, y), round)

    def _seed_of(self, purpose: str, round: int, step: int) -> int:
        return seed_of(self._seed, purpose, client=self.client, round=round, step=step)

    def state(self) -> State:
        """Weights, buffers and optimizer state of body and head."""
        return {"body": self._body.state(), "head": self._head.state() if self._head else None}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._body.load_state(state["body"])
        if self._head is not None:
            self._head.load_state(state["head"])
        if self._graphed_steps:
            self._graphed_steps.drop()
