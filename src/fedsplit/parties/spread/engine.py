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
    Stepped,
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
        workers: compute.
        start: starts them.
    """

    def __init__(self, local: Engine, workers: Workers, start: Callable[[Workers], None]) -> None:
        super().__init__(local.blueprint)
        self.local, self.workers, self._start = local, workers, start
        self._costs: dict[int, int] = {}
        self._unit_of: dict[int, int] = {}
        self.homes: dict[int, int] = {}
        """The worker that computes a client, or did, and has its state."""
        self._here: State = {}
        """States, by client, that no worker was given yet."""
        self._owed: list[PendingAnswer] = []
        """Pending answers of workers that carry no result, but may carry an error."""

    @property
    def summary(self) -> ClusterSummary:
        """Nodes and workers of the cluster that computes."""
        return self.workers.summary

    @contextmanager
    @override
    def opened(self) -> Iterator[None]:
        """Start the workers, and let them end afterwards."""
        try:
            self._start(self.workers)
            yield
        finally:
            self.workers.stop()

    def recover(self) -> None:
        """Go on after a worker was lost; no client has any state until `load_state`."""
        self._owed = []
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
            own = [list(unit) for unit, home in zip(units, workers, strict=True) if home == worker]
            names = (str(client) for unit in own for client in unit)
            states = {name: self._here.pop(name) for name in names if name in self._here}
            if own:
                self.tell(worker, "form", own, states)
        self.homes |= homes

    def _cost(self, client: int) -> int:
        if client not in self._costs:
            self._costs[client] = self.blueprint.batches(client).samples
        return self._costs[client]

    @override
    def install(self, part: Part, weights: Mapping[int, Weights]) -> None:
        messages: dict[int, tuple[Weights, list[int]]] = {}
        for client, each in weights.items():
            messages.setdefault(id(each), (each, []))[1].append(client)
        for_worker: dict[int, list[tuple[list[int], object]]] = {}
        for each, receivers in messages.values():
            by_worker = self.by_worker(receivers)
            sent: object = self.workers.share(each) if len(by_worker) > 1 else each
            for worker, own in by_worker.items():
                for_worker.setdefault(worker, []).append((own, sent))
        for worker, given in for_worker.items():
            self.tell(worker, "install", part, [own for own, _ in given], *(sent for _, sent in given))

    @override
    def weights(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        places = {client: position for position, client in enumerate(clients)}
        stacks: list[tuple[list[int], Weights]] = []
        alone: dict[int, Weights] = {}
        by_worker = self.by_worker(clients)
        asked = [self.workers.ask(worker, "weights", part, own) for worker, own in by_worker.items()]
        for own, found in zip(by_worker.values(), self.answers(asked), strict=True):
            if found and isinstance(found[0], dict):
                alone |= dict(zip(own, found, strict=True))
            else:
                stacks += [([places[own[row]] for row in rows], tensors) for rows, tensors in found]
        if alone:
            return [alone[client] for client in clients]
        return StackedWeights(sorted(stacks, key=lambda stack: self._unit_of[clients[stack[0][0]]]))

    @override
    def forward(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        answers = self._ask_homes("forward", clients, round, step)
        found = [each for _, uploads in answers for each in uploads]
        if any(stacked for stacked, _ in answers):
            return StackedUploads(sorted(found, key=lambda stack: self._unit_of[stack.clients[0]]))
        return self._sorted(clients, found)

    @override
    def evaluated(self, clients: Sequence[int], round: int, step: int) -> Sequence[Upload]:
        answers = self._ask_homes("evaluated", clients, round, step)
        return self._sorted(clients, [upload for uploads in answers for upload in uploads])

    def _sorted(self, clients: Sequence[int], uploads: Sequence[Upload]) -> list[Upload]:
        by_client = {upload.client: upload for upload in uploads}
        return [by_client[client] for client in clients if client in by_client]

    @override
    def backward(self, round: int, step: int, dz: Mapping[int, Tensor]) -> None:
        for worker, own in self._divided(dz).items():
            self.tell(worker, "backward", round, step, own)

    @override
    def probe(
        self, round: int, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]
    ) -> dict[int, Tensor]:
        asked = [
            self.workers.ask(worker, "probe", round, step, own, list(seeds))
            for worker, own in self._divided(dz).items()
        ]
        found = {client: own for each in self.answers(asked) for client, own in each.items()}
        return {client: found[client] for client in dz}

    @override
    def move(
        self, clients: Sequence[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        for worker, own in self.by_worker(clients).items():
            self.tell(worker, "move", own, round, step, list(seeds), slopes)

    @override
    def step_tail(self, round: int, step: int, h: Mapping[int, Tensor]) -> Stepped:
        divided = self._divided(h)
        asked = [self.workers.ask(worker, "step_tail", round, step, own) for worker, own in divided.items()]
        answers = self.answers(asked)
        losses = [loss for own, _ in answers for loss in own]
        losses.sort(key=lambda loss: self._unit_of[loss.clients[0]])
        if all(isinstance(gradients, StackedGradients) for _, gradients in answers):
            stacks = [stack for _, gradients in answers for stack in gradients.stacks]
            return losses, StackedGradients(sorted(stacks, key=lambda stack: self._unit_of[stack[0][0]]))
        found = {client: gradients[client] for _, gradients in answers for client in gradients}
        return losses, {client: found[client] for client in h}

    def _divided(self, dz: Mapping[int, Tensor]) -> dict[int, Mapping[int, Tensor]]:
        """Gradients for each worker's clients; stacks of clients of one unit stay stacks."""
        stacks = dz.stacks if isinstance(dz, StackedGradients) else ()
        if stacks and all(len({self.homes[client] for client in clients}) == 1 for clients, _ in stacks):
            by_worker: dict[int, list[Any]] = {}
            for clients, each in stacks:
                by_worker.setdefault(self.homes[clients[0]], []).append((list(clients), each))
            return {worker: StackedGradients(own) for worker, own in by_worker.items()}
        by_home = self.by_worker(list(dz))
        return {worker: {client: dz[client] for client in own} for worker, own in by_home.items()}

    @override
    def train_local(self, clients: Sequence[int], round: int, work: LocalWork) -> LocalTraining:
        """See `Engine.train_local`; uploads of a unit can be read while others are computed."""
        wanted = set(clients)
        units: dict[int, list[int]] = {}
        for client, unit in self._unit_of.items():
            if client in wanted:
                units.setdefault(unit, []).append(client)
        asked = [
            self.workers.ask(self.homes[own[0]], "train_local", own, round, work) for own in units.values()
        ]
        losses: list[BatchLoss] = []
        uploads = self._trained(asked, losses)
        in_order = [client for own in units.values() for client in own] == sorted(wanted)
        if work.upload_interval is None or (work.in_order and not in_order):
            return LocalTraining(sorted(uploads, key=lambda upload: (upload.client, upload.step)), losses)
        return LocalTraining(uploads, losses)

    def _trained(self, asked: Sequence[PendingAnswer], losses: list[BatchLoss]) -> Iterator[Upload]:
        for pending in asked:
            ((uploads, own),) = self.answers([pending])
            losses += own
            yield from uploads

    @override
    def state(self) -> State:
        found = dict(self._here)
        for state in self.answers([self.workers.ask(each, "state") for each in self.workers.present]):
            found |= state
        return found

    @override
    def load_state(self, state: State) -> None:
        self._here = dict(state)
        self.homes = {}
        for worker in self.workers.present:
            self.tell(worker, "clear")

    @override
    def take(self, clients: Collection[int]) -> State:
        state = {name: self._here.pop(name) for name in map(str, clients) if name in self._here}
        held = [client for client in clients if client in self.homes]
        for found in self._ask_homes("take", held):
            state |= found
        for client in held:
            del self.homes[client]
        return state

    @override
    def give(self, state: State) -> None:
        self._here |= state

    @override
    def drop_heads(self, clients: Collection[int]) -> None:
        for worker in self.workers.present:
            self.tell(worker, "drop_heads", list(clients))
        for name in map(str, clients):
            if name in self._here and not self._here[name]["body"]:
                del self._here[name]

    @override
    def forget(self) -> None:
        for worker in self.workers.present:
            self.tell(worker, "forget")
        if not self.blueprint.keeps_head:
            self.homes, self._here = {}, {}

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
        """Ask for what gives nothing; what comes of it, the next answer that is waited for tells."""
        self._owed.append(self.workers.ask(worker, verb, *arguments))

    def _ask_homes(self, verb: str, clients: Sequence[int], *arguments: Any) -> list[Any]:
        """Answers of the workers that compute some of the clients."""
        by_worker = self.by_worker(clients)
        return self.answers(
            [self.workers.ask(worker, verb, own, *arguments) for worker, own in by_worker.items()]
        )

    def answers(self, asked: Sequence[PendingAnswer]) -> list[Any]:
        """Wait for answers, and raise what earlier calls of `tell` ended with."""
        owed, self._owed = self._owed, []
        return self.workers.gather([*owed, *asked])[len(owed) :]

    def by_worker(self, clients: Sequence[int]) -> dict[int, list[int]]:
        """Clients by the worker that computes them, in their order."""
        found: dict[int, list[int]] = {}
        for client in clients:
            found.setdefault(self.homes[client], []).append(client)
        return found
