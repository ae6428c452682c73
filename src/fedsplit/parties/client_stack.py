"""Clients that are computed together, as one stack."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.stacked_state import StackedState, rows_of
from fedsplit.computing.steppable import RuleTensors, Steppable
from fedsplit.data.batches import StackedBatches
from fedsplit.parties.engine import Blueprint
from fedsplit.parties.graphed_steps import GraphedSteps, Range
from fedsplit.parties.local_rule import StepSeeds
from fedsplit.parties.local_step import (
    Descend,
    Slopes,
    forward_alone,
    forward_body,
    local_step,
    train_head,
)
from fedsplit.parties.members import Members, row_optimizer
from fedsplit.parties.messages import BatchLoss, Part, UploadStack
from fedsplit.randomness import seed_of
from fedsplit.state.weights import Weights


@dataclass(frozen=True)
class Pending:
    """A forward pass of some rows that waits for cut gradients: nothing of the clients has changed yet."""

    round: int
    step: int
    clients: Sequence[int]
    y: Tensor
    goes_on: Descend | Slopes


def _range_of(model: StackedState, rows: Range) -> Steppable:
    assert rows is not None, "a lone client is not a stack"
    return model.rows(slice(*rows))


class ClientStack(Members):
    """Clients that are computed together, those with most samples first."""

    def __init__(self, clients: Sequence[int], blueprint: Blueprint) -> None:
        optimizer = row_optimizer(blueprint.optimizer)
        rule = blueprint.rule
        state = partial(StackedState, optimizer=optimizer, keeps_anchor=rule.keeps_anchor, keeps=rule.keeps)
        self.body = state(blueprint.body, len(clients))
        models = {"body": self.body}
        self.head = None
        if blueprint.head is not None:
            self.head = state(blueprint.head, len(clients))
            models["head"] = self.head
        super().__init__(clients, models)
        self.batches = StackedBatches([blueprint.batches(client) for client in clients])
        self._blueprint, self._losses = blueprint, blueprint.objective.of_many
        self._graphed_steps = self._record_steps(blueprint.recorder) if blueprint.recorder else None

    def _record_steps(self, recorder: Recorder) -> GraphedSteps:
        body, head = self.body, self.head
        heads = partial(_range_of, head) if head else None
        made = partial(_range_of, body), heads, self._losses, self._blueprint.estimator
        return GraphedSteps(recorder, *made, rule=self._blueprint.rule)

    def groups(self, step: int, clients: Collection[int]) -> Iterator[list[int]]:
        """Rows of those clients that have such a step, in groups of equal batch size."""
        rows = [row for row, client in enumerate(self.clients) if client in clients]
        yield from self.batches.groups(step, rows)

    def models_of(self, part: Part) -> list[StackedState]:
        """The models whose weights a part is made of."""
        return [self.models[name] for name in self._blueprint.models_of(part)]

    def receive(self, client: int, control_variates: Weights) -> None:
        """Let a client take over the server's control variates."""
        for rule_tensors, steps in self._rule_tensors_of(client):
            self._blueprint.rule.receive(rule_tensors, control_variates, steps)

    def control_variates(self, client: int) -> Weights:
        """Control variates of a client."""
        rule = self._blueprint.rule
        by_model = [rule.control_variates(kept, steps) for kept, steps in self._rule_tensors_of(client)]
        return {name: variate for variates in by_model for name, variate in variates.items()}

    def _rule_tensors_of(self, client: int) -> Iterator[tuple[RuleTensors, int]]:
        steps = self._blueprint.batches(client).steps
        yield from ((model.row_rule_tensors(self.row[client]), steps) for model in self.models.values())

    def forward(self, rows: Sequence[int], round: int, step: int) -> tuple[UploadStack, Pending]:
        """Smashed data of one step, and what waits for their cut gradients."""
        x, y = self.batches.batch(round, step, rows)
        selected = rows_of(rows)
        clients = [self.clients[row] for row in rows]
        rule, goes_on = self._blueprint.rule, cast(Descend | Slopes, None)
        if self._graphed_steps and isinstance(selected, slice):
            (z,) = self._graphed_steps.forward((selected.start, selected.stop), x)
            goes_on = partial(self._graphed_steps.backward, (selected.start, selected.stop), x)
        else:
            blueprint, body = self._blueprint, self.body.rows(selected)
            dropout_seeds = self._dropout_seeds(self.body, "client", clients, round, step)
            if rule.answers_seeds:
                z, goes_on = forward_alone(body, x, rule=rule, seed=dropout_seeds)
            else:
                rule_seeds = [blueprint.rule_seed(client, round, step) for client in clients]
                seeds = StepSeeds(body=dropout_seeds, rule=rule_seeds)
                z, goes_on = forward_body(body, x, rule=rule, seeds=seeds, extra=blueprint.extra)
        uploads = self.release(UploadStack(clients, step, z, y), round)
        return uploads, Pending(round, step, clients, y, goes_on)

    def move(
        self, clients: Collection[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        """Step client models along what slopes `(P,)` of all clients together make."""
        body = self.body.rows(rows_of([row for row, client in enumerate(self.clients) if client in clients]))
        estimate = self._blueprint.rule.estimate(body, seeds, slopes)
        directions = [
            gradient.expand_as(rows) for gradient, rows in zip(estimate, body.trainable.values(), strict=True)
        ]
        body.descend(directions, self._blueprint.schedule.at(round, step))

    def release(self, exact: UploadStack, round: int) -> UploadStack:
        """Uploads as they leave their clients; see `Blueprint.release`."""
        if not self._blueprint.defence.releases:
            return exact
        return UploadStack.of([self._blueprint.release(upload, round) for upload in exact.uploads()])

    def step_tail(self, waiting: Pending, h: Tensor) -> tuple[BatchLoss, Tensor]:
        """Step the tails of clients whose forward passes wait; see `ClientWorker.step_tail`."""
        assert self.head is not None, "these clients have no tail"
        round, step, clients, y = waiting.round, waiting.step, waiting.clients, waiting.y
        tail_step = train_head(
            self.head.rows(rows_of([self.row[client] for client in clients])),
            self._losses,
            h,
            y,
            learning_rate_factor=self._blueprint.schedule.at(round, step),
            seed=self._dropout_seeds(self.head, "tail", clients, round, step),
            rule=self._blueprint.rule,
        )
        return BatchLoss(clients, tail_step.loss, self._losses.counts(y)), tail_step.dz

    def train_step(
        self, rows: Sequence[int], round: int, step: int, *, train_head_too: bool
    ) -> tuple[UploadStack, BatchLoss | None]:
        """One local step of some clients; see `ClientWorker.train_local`."""
        assert self.head is not None, "this algorithm's clients have no head"
        blueprint, selected = self._blueprint, rows_of(rows)
        factor = blueprint.schedule.at(round, step)
        x, y = self.batches.batch(round, step, rows)
        clients = [self.clients[row] for row in rows]
        if self._graphed_steps and isinstance(selected, slice):
            z, *losses = self._graphed_steps.train(
                (selected.start, selected.stop), train_head_too, x, y, factor
            )
        else:
            z, *losses = local_step(
                self.body.rows(selected),
                self.head.rows(selected),
                self._losses,
                x,
                y,
                rule=blueprint.rule,
                estimator=None if train_head_too else blueprint.estimator,
                learning_rate_factor=factor,
                seeds=StepSeeds(
                    self._dropout_seeds(self.body, "client", clients, round, step),
                    self._dropout_seeds(self.head, "head", clients, round, step),
                    [blueprint.rule_seed(client, round, step) for client in clients],
                ),
                decode=partial(self._head_input, y=y, clients=clients, round=round, step=step)
                if blueprint.head_sees
                else None,
                extra=blueprint.extra,
            )
        loss = BatchLoss(clients, losses[0], self._losses.counts(y)) if losses else None
        return UploadStack(clients, step, z, y), loss

    def _dropout_seeds(
        self, model: StackedState, half: str, clients: Sequence[int], round: int, step: int
    ) -> list[int]:
        return self._seeds(f"dropout of the {half}", clients, round, step) if model.stack.draws else []

    def _seeds(self, purpose: str, clients: Sequence[int], round: int, step: int) -> list[int]:
        seed = self._blueprint.seed
        return [seed_of(seed, purpose, client=client, round=round, step=step) for client in clients]

    def _head_input(self, z: Tensor, *, y: Tensor, clients: Sequence[int], round: int, step: int) -> Tensor:
        uploads = UploadStack(clients, step, z, y).uploads()
        return torch.stack([self._blueprint.head_input(upload, round) for upload in uploads])
