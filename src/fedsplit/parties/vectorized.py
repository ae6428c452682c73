"""The clients of a cohort as one stacked computation."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.stacked_state import StackedState
from fedsplit.config.values import PositiveFloat
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.client_stack import ClientStack, Pending
from fedsplit.parties.engine import Blueprint, Engine
from fedsplit.parties.local_step import Descend, Slopes
from fedsplit.parties.members import largest_first, row_optimizer
from fedsplit.parties.messages import (
    BatchLoss,
    LocalTraining,
    LocalWork,
    Part,
    StackedGradients,
    StackedUploads,
    StepResult,
    Upload,
)
from fedsplit.parties.server_copies import StackedCopies
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights


class Vectorized(Engine):
    """All clients of a cohort at once, or as many as fit into a stack; see `Engine`.

    Sampled clients leave with the round: what they keep is set aside, a row each, until they come again.

    Args:
        blueprint: parts that clients are made of.
        stack_mb: MB of weights, gradients and activations that one stack may hold, so that they stay in
            a processor's caches.
    """

    def __init__(self, blueprint: Blueprint, *, stack_mb: PositiveFloat) -> None:
        super().__init__(blueprint)
        row_optimizer(blueprint.optimizer)
        self.stack_mb = stack_mb
        self._stacks: list[ClientStack] = []
        self._set_aside: dict[int, State] = {}
        self._heads: dict[int, Weights] = {}
        self._pending: list[Pending] = []
        self._units: Sequence[Sequence[int]] = []
        self._bytes_of_one = 0.0

    @override
    def units(self, clients: Sequence[int]) -> Sequence[Sequence[int]]:
        if {client for unit in self._units for client in unit} != set(clients):
            largest_clients_first = largest_first(
                {client: self.blueprint.batches(client).samples for client in clients}
            )
            size = self._stack_size(clients)
            self._units = [
                largest_clients_first[start : start + size]
                for start in range(0, len(largest_clients_first), size)
            ]
        return self._units

    @override
    def form(self, units: Sequence[Sequence[int]]) -> None:
        if [stack.clients for stack in self._stacks] == [list(unit) for unit in units]:
            return
        self._set_aside |= self._present()
        self._stacks = [ClientStack(unit, self.blueprint) for unit in units]
        for stack in self._stacks:
            for client in stack.clients:
                if client in self._set_aside:
                    stack.load(client, self._set_aside.pop(client))
                elif client in self._heads:
                    stack.load(client, {"head": {"weights": self._heads[client]}})

    def _stack_size(self, clients: Sequence[int]) -> int:
        """Clients in a stack: as equal parts of the cohort as fit, each at least one."""
        self._bytes_of_one = self._bytes_of_one or self._measure_bytes(clients[0])
        fit = max(1, int(self.stack_mb * 1e6 / self._bytes_of_one))
        stacks = -(-len(clients) // fit)
        return -(-len(clients) // stacks)

    def _measure_bytes(self, client: int) -> float:
        """Bytes that a step of one client touches: weights and gradients, and activations twice."""
        x, y = self.blueprint.batches(client).batch(0, 0)
        modules = [module for module in (self.blueprint.body, self.blueprint.head) if module]
        elements = x.numel() + 2 * sum(p.numel() for module in modules for p in module.parameters())

        def count(module: nn.Module, inputs: object, output: object) -> None:
            nonlocal elements
            elements += 2 * output.numel() if isinstance(output, Tensor) else 0

        leaves = [leaf for module in modules for leaf in module.modules() if not list(leaf.children())]
        hooks = [leaf.register_forward_hook(count) for leaf in leaves]
        try:
            self.blueprint.pass_through(x, y)
        finally:
            for hook in hooks:
                hook.remove()
        return float(elements * x.element_size())

    def _stacks_of(self, clients: Collection[int]) -> Iterator[ClientStack]:
        wanted_clients = set(clients)
        count = 0
        for stack in self._stacks:
            members = wanted_clients.intersection(stack.row)
            if members:
                count += len(members)
                yield stack
        assert count == len(wanted_clients), "a verb is for clients that take part"

    @override
    def install(self, part: Part, weights: Mapping[int, Weights]) -> None:
        for stack in self._stacks_of(weights):
            weights_by_client = {client: weights[client] for client in stack.clients if client in weights}
            if part == "control":
                for client, client_weights in weights_by_client.items():
                    stack.receive(client, client_weights)
                continue
            is_shared = len(
                {id(client_weights) for client_weights in weights_by_client.values()}
            ) == 1 and len(weights_by_client) == len(stack.clients)
            for model in stack.models_of(part):
                if is_shared:
                    model.load_all(next(iter(weights_by_client.values())))
                else:
                    for client, client_weights in weights_by_client.items():
                        model.load_row(stack.row[client], client_weights)

    @override
    def weights(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        if part == "control":
            stacks_of = {client: stack for stack in self._stacks for client in stack.clients}
            return [stacks_of[client].control_variates(client) for client in clients]
        order = {client: position for position, client in enumerate(clients)}
        stacks = []
        for stack in self._stacks_of(clients):
            tensors = {name: t for model in stack.models_of(part) for name, t in model.tensors().items()}
            selected_rows = [row for row, client in enumerate(stack.clients) if client in order]
            if len(selected_rows) < len(stack.clients):
                tensors = {name: t[selected_rows] for name, t in tensors.items()}
            stacks.append(([order[stack.clients[row]] for row in selected_rows], tensors))
        return StackedWeights(stacks)

    @override
    def forward(self, clients: Sequence[int], round: int, step: int) -> StackedUploads:
        self._pending, stacks, wanted_clients = [], [], set(clients)
        for stack in self._stacks_of(clients):
            for rows in stack.groups(step, wanted_clients):
                uploads, pending = stack.forward(rows, round, step)
                stacks.append(uploads)
                self._pending.append(pending)
        return StackedUploads(stacks)

    @override
    def backward(self, round: int, step: int, dz: Mapping[int, Tensor]) -> None:
        factor = self.blueprint.schedule.at(round, step)
        for pending in self._waiting(round, step):
            if isinstance(dz, StackedGradients):
                gradients = dz.of(pending.clients)
            else:
                gradients = torch.stack([dz[client][: pending.y.shape[1]] for client in pending.clients])
            cast(Descend, pending.goes_on)(gradients, factor)
        self._pending = []

    @override
    def probe(
        self, round: int, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]
    ) -> dict[int, Tensor]:
        slopes: dict[int, Tensor] = {}
        for pending in self._waiting(round, step):
            gradients = torch.stack([dz[client] for client in pending.clients])
            slopes |= dict(zip(pending.clients, cast(Slopes, pending.goes_on)(gradients, seeds), strict=True))
        self._pending = []
        return slopes

    @override
    def move(
        self, clients: Sequence[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        self._pending = []
        for stack in self._stacks_of(clients):
            stack.move(clients, round, step, seeds, slopes)

    @override
    def step_tail(self, round: int, step: int, h: Mapping[int, Tensor]) -> StepResult:
        outputs = StackedGradients.holding(h)
        losses: list[BatchLoss] = []
        gradients = []
        for pending in self._waiting(round, step):
            if pending.clients[0] in outputs:  # batches of another size are asked for by themselves
                (stack,) = self._stacks_of(pending.clients)
                loss, dh = stack.step_tail(pending, outputs.of(pending.clients))
                losses.append(loss)
                gradients.append((pending.clients, dh))
        return losses, StackedGradients(gradients)

    def _waiting(self, round: int, step: int) -> list[Pending]:
        if any((pending.round, pending.step) != (round, step) for pending in self._pending):
            raise AssertionError(f"no forward pass of step {step} of round {round} is waiting")
        return self._pending

    @override
    def train_local(self, clients: Sequence[int], round: int, work: LocalWork) -> LocalTraining:
        self._pending = []
        losses: list[BatchLoss] = []
        uploads: Iterable[Upload] = self._train(set(clients), round, work, losses)
        if work.upload_interval is None or work.in_order:
            uploads = sorted(uploads, key=lambda upload: (upload.client, upload.step))
        return LocalTraining(uploads, losses)

    def _train(
        self, trained_clients: set[int], round: int, work: LocalWork, losses: list[BatchLoss]
    ) -> Iterator[Upload]:
        """Uploads of clients that train while these are read, step by step; adds to `losses`."""
        for stack in self._stacks_of(trained_clients):
            for step in range(stack.batches.steps):
                for rows in stack.groups(step, trained_clients):
                    uploads_of_step, loss = stack.train_step(
                        rows, round, step, train_head_too=work.train_head
                    )
                    losses += [loss] if loss else []
                    if work.upload_interval is not None and step % work.upload_interval == 0:
                        uploads = (
                            upload
                            for upload in uploads_of_step.uploads()
                            if work.uploads(upload.client, step)
                        )
                        yield from (self.blueprint.release(upload, round) for upload in uploads)

    def _present(self) -> dict[int, State]:
        return {client: stack.client_state(client) for stack in self._stacks for client in stack.clients}

    @override
    def state(self) -> State:
        heads = {
            client: {"body": None, "head": {"weights": weights}} for client, weights in self._heads.items()
        }
        client_states = heads | self._set_aside | self._present()
        return {str(client): {"head": None, **client_state} for client, client_state in client_states.items()}

    @override
    def load_state(self, state: State) -> None:
        self._stacks, self._pending, self._set_aside = [], [], {}
        self.drop_heads(list(self._heads))
        self.give(state)

    @override
    def take(self, clients: Collection[int]) -> State:
        if any(client in stack.row for stack in self._stacks for client in clients):
            self._set_aside |= self._present()
            self._stacks, self._pending = [], []
        state: State = {}
        for client in clients:
            head, client_state = self._heads.pop(client, None), self._set_aside.pop(client, None)
            if client_state is not None:
                state[str(client)] = {"head": None, **client_state}
            elif head is not None:
                state[str(client)] = {"body": None, "head": {"weights": head}}
            self.blueprint.memory.release(head)
        return state

    @override
    def give(self, state: State) -> None:
        for client, client_state in state.items():
            if client_state["body"]:
                self._set_aside[int(client)] = dict(client_state)
            else:
                self._heads[int(client)] = self.blueprint.memory.keep(client_state["head"]["weights"])

    @override
    def drop_heads(self, clients: Collection[int]) -> None:
        for client in clients:
            self.blueprint.memory.release(self._heads.pop(client, None))

    @override
    def forget(self) -> None:
        if self.blueprint.keeps_head:
            for stack in self._stacks:
                head = cast(StackedState, stack.head)
                for client, row in stack.row.items():
                    head_weights = {name: stack[row] for name, stack in head.tensors().items()}
                    head_weights = self.blueprint.memory.keep(head_weights, self._heads.get(client))
                    self._heads[client] = head_weights
        self._stacks, self._pending = [], []
        self._set_aside.clear()

    @override
    def server_copies(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        seed: int,
        recorder: Recorder | None = None,
    ) -> "StackedCopies":
        objective = self.blueprint.objective
        return StackedCopies(
            module, objective, row_optimizer(optimizer), schedule, seed=seed, recorder=recorder
        )
