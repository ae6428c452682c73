"""An engine that hands verbs to workers, and sorts their answers as one process would give them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.captured_steps import Recorder
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Engine
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
from fedsplit.parties.server_copies import ServerCopies
from fedsplit.parties.spread.placement import place
from fedsplit.parties.workers import ClusterSummary, PendingAnswer, Workers
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights


class SpreadEngine(Engine):
    """Clients that workers compute; see `Engine`.

    What is computed at a time is what `local` would: a stack stays whole, and answers come in the order of
    one process. So results have the same bits, however many workers there are.

    Args:
        local: the engine that would compute all clients here; workers have the same.
        workers: workers that compute the clients.
        start: function that starts the workers.
    """

    def __init__(self, local: Engine, workers: Workers, start: Callable[[Workers], None]) -> None:
        super().__init__(local.blueprint)
        self.local, self.workers, self._start = local, workers, start
        self._costs: dict[int, int] = {}
        self._unit_of: dict[int, int] = {}
        self.homes: dict[int, int] = {}
        """The worker that computes a client, or did, and has its state."""
        self._local_state: State = {}
        """States, by client, that no worker was given yet."""
        self._pending_tells: list[PendingAnswer] = []
        """Pending answers of workers that carry no result, but may carry an error."""

    @property
    def summary(self) -> ClusterSummary:
        """Nodes and workers of the cluster that computes."""
        return self.workers.summary

    @contextmanager
    @override
    def open(self) -> Iterator[None]:
        """Start the workers, and let them end afterwards."""
        try:
            self._start(self.workers)
            yield
        finally:
            self.workers.stop()

    def recover(self) -> None:
        """Go on after a worker was lost; no client has any state until `load_state`."""
        self._pending_tells = []
        self.workers.recover()
        self.load_state({})

    @override
    def units(self, clients: Sequence[int]) -> Sequence[Sequence[int]]:
        return self.local.units(clients)

    @override
    def form(self, units: Sequence[Sequence[int]]) -> None:
        costs = [float(sum(map(self._cost, unit))) for unit in units]
        workers = place(units, costs, self.homes, self.workers.present)
        self._unit_of = {client: number for number, unit in enumerate(units) for client in unit}
        homes = {client: workers[number] for client, number in self._unit_of.items()}
        self.give(self.take([c for c, worker in homes.items() if self.homes.get(c, worker) != worker]))
        for worker in self.workers.present:
            units_of_worker = [
                list(unit) for unit, home in zip(units, workers, strict=True) if home == worker
            ]
            names = (str(client) for unit in units_of_worker for client in unit)
            states = {name: self._local_state.pop(name) for name in names if name in self._local_state}
            if units_of_worker:
                self.tell(worker, "form", units_of_worker, states)
        self.homes |= homes

    def _cost(self, client: int) -> int:
        if client not in self._costs:
            self._costs[client] = self.blueprint.batches(client).samples
        return self._costs[client]

    @override
    def install(self, part: Part, weights: Mapping[int, Weights]) -> None:
        messages: dict[int, tuple[Weights, list[int]]] = {}
        for client, client_weights in weights.items():
            messages.setdefault(id(client_weights), (client_weights, []))[1].append(client)
        for_worker: dict[int, list[tuple[list[int], object]]] = {}
        for client_weights, receivers in messages.values():
            by_worker = self.by_worker(receivers)
            argument: object = self.workers.share(client_weights) if len(by_worker) > 1 else client_weights
            for worker, clients_of_worker in by_worker.items():
                for_worker.setdefault(worker, []).append((clients_of_worker, argument))
        for worker, messages_of_worker in for_worker.items():
            self.tell(
                worker,
                "install",
                part,
                [receivers_of_message for receivers_of_message, _ in messages_of_worker],
                *(argument for _, argument in messages_of_worker),
            )

    @override
    def weights(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        places = {client: position for position, client in enumerate(clients)}
        stacks: list[tuple[list[int], Weights]] = []
        alone: dict[int, Weights] = {}
        by_worker = self.by_worker(clients)
        pending = [
            self.workers.ask(worker, "weights", part, clients_of_worker)
            for worker, clients_of_worker in by_worker.items()
        ]
        for clients_of_worker, answer in zip(by_worker.values(), self.gather(pending), strict=True):
            if answer and isinstance(answer[0], dict):
                alone |= dict(zip(clients_of_worker, answer, strict=True))
            else:
                stacks += [
                    ([places[clients_of_worker[row]] for row in rows], tensors) for rows, tensors in answer
                ]
        if alone:
            return [alone[client] for client in clients]
        return StackedWeights(sorted(stacks, key=lambda stack: self._unit_of[clients[stack[0][0]]]))

    @override
    def forward(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        answers = self._ask_homes("forward", clients, round, step)
        uploads_of_all = [upload for _, uploads in answers for upload in uploads]
        if any(are_stacks for are_stacks, _ in answers):
            return StackedUploads(sorted(uploads_of_all, key=lambda stack: self._unit_of[stack.clients[0]]))
        return self._sort(clients, uploads_of_all)

    @override
    def forward_evaluating(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        answers = self._ask_homes("forward_evaluating", clients, round, step)
        return self._sort(clients, [upload for uploads in answers for upload in uploads])

    def _sort(self, clients: Sequence[int], uploads: Sequence[Upload]) -> list[Upload]:
        by_client = {upload.client: upload for upload in uploads}
        return [by_client[client] for client in clients if client in by_client]

    @override
    def backward(self, round: int, step: int, dz: Mapping[int, Tensor]) -> None:
        for worker, gradients in self._divide(dz).items():
            self.tell(worker, "backward", round, step, gradients)

    @override
    def probe(
        self, round: int, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]
    ) -> dict[int, Tensor]:
        pending = [
            self.workers.ask(worker, "probe", round, step, gradients, list(seeds))
            for worker, gradients in self._divide(dz).items()
        ]
        slopes_by_client = {
            client: slopes_of_client
            for answer in self.gather(pending)
            for client, slopes_of_client in answer.items()
        }
        return {client: slopes_by_client[client] for client in dz}

    @override
    def move(
        self, clients: Sequence[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        for worker, clients_of_worker in self.by_worker(clients).items():
            self.tell(worker, "move", clients_of_worker, round, step, list(seeds), slopes)

    @override
    def step_tail(self, round: int, step: int, h: Mapping[int, Tensor]) -> StepResult:
        outputs_by_worker = self._divide(h)
        pending = [
            self.workers.ask(worker, "step_tail", round, step, outputs)
            for worker, outputs in outputs_by_worker.items()
        ]
        answers = self.gather(pending)
        losses = [loss for losses_of_worker, _ in answers for loss in losses_of_worker]
        losses.sort(key=lambda loss: self._unit_of[loss.clients[0]])
        if all(isinstance(gradients, StackedGradients) for _, gradients in answers):
            stacks = [stack for _, gradients in answers for stack in gradients.stacks]
            return losses, StackedGradients(sorted(stacks, key=lambda stack: self._unit_of[stack[0][0]]))
        gradients_by_client = {client: gradients[client] for _, gradients in answers for client in gradients}
        return losses, {client: gradients_by_client[client] for client in h}

    def _divide(self, dz: Mapping[int, Tensor]) -> dict[int, Mapping[int, Tensor]]:
        """Gradients for each worker's clients; stacks of clients of one unit stay stacks."""
        stacks = dz.stacks if isinstance(dz, StackedGradients) else ()
        if stacks and all(len({self.homes[client] for client in clients}) == 1 for clients, _ in stacks):
            by_worker: dict[int, list[Any]] = {}
            for clients, gradient in stacks:
                by_worker.setdefault(self.homes[clients[0]], []).append((list(clients), gradient))
            return {
                worker: StackedGradients(stacks_of_worker) for worker, stacks_of_worker in by_worker.items()
            }
        by_home = self.by_worker(list(dz))
        return {
            worker: {client: dz[client] for client in clients_of_worker}
            for worker, clients_of_worker in by_home.items()
        }

    @override
    def train_local(self, clients: Sequence[int], round: int, work: LocalWork) -> LocalTraining:
        trained_clients = set(clients)
        units: dict[int, list[int]] = {}
        for client, unit in self._unit_of.items():
            if client in trained_clients:
                units.setdefault(unit, []).append(client)
        pending = [
            self.workers.ask(self.homes[clients_of_unit[0]], "train_local", clients_of_unit, round, work)
            for clients_of_unit in units.values()
        ]
        losses: list[BatchLoss] = []
        uploads = self._read_uploads(pending, losses)
        in_order = [client for clients_of_unit in units.values() for client in clients_of_unit] == sorted(
            trained_clients
        )
        if work.upload_interval is None or (work.in_order and not in_order):
            return LocalTraining(sorted(uploads, key=lambda upload: (upload.client, upload.step)), losses)
        return LocalTraining(uploads, losses)

    def _read_uploads(self, pending: Sequence[PendingAnswer], losses: list[BatchLoss]) -> Iterator[Upload]:
        for one in pending:
            ((uploads, unit_losses),) = self.gather([one])
            losses += unit_losses
            yield from uploads

    @override
    def state(self) -> State:
        states = dict(self._local_state)
        for state in self.gather([self.workers.ask(worker, "state") for worker in self.workers.present]):
            states |= state
        return states

    @override
    def load_state(self, state: State) -> None:
        self._local_state = dict(state)
        self.homes = {}
        for worker in self.workers.present:
            self.tell(worker, "clear")

    @override
    def take(self, clients: Collection[int]) -> State:
        state = {name: self._local_state.pop(name) for name in map(str, clients) if name in self._local_state}
        placed_clients = [client for client in clients if client in self.homes]
        for states in self._ask_homes("take", placed_clients):
            state |= states
        for client in placed_clients:
            del self.homes[client]
        return state

    @override
    def give(self, state: State) -> None:
        self._local_state |= state

    @override
    def drop_heads(self, clients: Collection[int]) -> None:
        for worker in self.workers.present:
            self.tell(worker, "drop_heads", list(clients))
        for name in map(str, clients):
            if name in self._local_state and not self._local_state[name]["body"]:
                del self._local_state[name]

    @override
    def forget(self) -> None:
        for worker in self.workers.present:
            self.tell(worker, "forget")
        if not self.blueprint.keeps_head:
            self.homes, self._local_state = {}, {}

    @override
    def server_copies(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        seed: int,
        recorder: Recorder | None = None,
    ) -> ServerCopies:
        return self.local.server_copies(module, optimizer, schedule, seed, recorder)

    def tell(self, worker: int, verb: str, *arguments: Any) -> None:
        """Ask a worker for what returns nothing; if it fails, the next call of `gather` raises its error."""
        self._pending_tells.append(self.workers.ask(worker, verb, *arguments))

    def _ask_homes(self, verb: str, clients: Sequence[int], *arguments: Any) -> list[Any]:
        """Answers of the workers that compute some of the clients."""
        by_worker = self.by_worker(clients)
        return self.gather(
            [
                self.workers.ask(worker, verb, clients_of_worker, *arguments)
                for worker, clients_of_worker in by_worker.items()
            ]
        )

    def gather(self, pending: Sequence[PendingAnswer]) -> list[Any]:
        """Wait for answers, and raise the errors of earlier calls of `tell`."""
        tells, self._pending_tells = self._pending_tells, []
        return self.workers.gather([*tells, *pending])[len(tells) :]

    def by_worker(self, clients: Sequence[int]) -> dict[int, list[int]]:
        """Clients by the worker that computes them, in their order."""
        by_worker: dict[int, list[int]] = {}
        for client in clients:
            by_worker.setdefault(self.homes[client], []).append(client)
        return by_worker
