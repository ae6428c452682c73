"""One client after the other."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.captured_steps import Recorder
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.engine import Blueprint, Engine
from fedsplit.parties.messages import BatchLoss, LocalTraining, LocalWork, Part, StepResult, Upload
from fedsplit.parties.server_copies import SequentialCopies
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


class Sequential(Engine):
    """A worker for each client, made when it first takes part; see `Engine`."""

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        self._workers: dict[int, ClientWorker] = {}
        self._heads: dict[int, Weights] = {}

    def worker(self, client: int) -> ClientWorker:
        """The worker of a client."""
        if client not in self._workers:
            self._workers[client] = ClientWorker(client, self.blueprint)
            if client in self._heads:
                self._workers[client].install("auxiliary", self._heads[client])
        return self._workers[client]

    @override
    def form(self, units: Sequence[Sequence[int]]) -> None:
        """Do nothing: clients are computed one by one; see `Engine.form`."""

    @override
    def install(self, part: Part, weights: Mapping[int, Weights]) -> None:
        for client, client_weights in weights.items():
            self.worker(client).install(part, client_weights)

    @override
    def weights(self, part: Part, clients: Sequence[int]) -> list[Weights]:
        return [self.worker(client).weights(part) for client in clients]

    @override
    def forward(self, clients: Sequence[int], round: int, step: int) -> list[Upload]:
        answers = (self.worker(client).forward(round, step) for client in clients)
        return [upload for upload in answers if upload is not None]

    @override
    def backward(self, round: int, step: int, dz: Mapping[int, Tensor]) -> None:
        for client, gradient in dz.items():
            self.worker(client).backward(round, step, gradient)

    @override
    def probe(
        self, round: int, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]
    ) -> dict[int, Tensor]:
        return {
            client: self.worker(client).probe(round, step, gradient, seeds) for client, gradient in dz.items()
        }

    @override
    def move(
        self, clients: Sequence[int], round: int, step: int, seeds: Sequence[int], slopes: Tensor
    ) -> None:
        for client in clients:
            self.worker(client).move(round, step, seeds, slopes)

    @override
    def step_tail(self, round: int, step: int, h: Mapping[int, Tensor]) -> StepResult:
        results = {
            client: self.worker(client).step_tail(round, step, outputs) for client, outputs in h.items()
        }
        return [loss for loss, _ in results.values()], {client: dh for client, (_, dh) in results.items()}

    @override
    def train_local(self, clients: Sequence[int], round: int, work: LocalWork) -> LocalTraining:
        losses: list[BatchLoss] = []
        uploads_by_client = (self.worker(client).train_local(round, work, losses) for client in clients)
        uploads = chain.from_iterable(uploads_by_client)
        return LocalTraining(list(uploads) if work.upload_interval is None else uploads, losses)

    @override
    def state(self) -> State:
        heads = {
            str(client): {"body": None, "head": {"weights": weights}}
            for client, weights in self._heads.items()
        }
        return heads | {str(client): worker.state() for client, worker in self._workers.items()}

    @override
    def load_state(self, state: State) -> None:
        self._workers.clear()
        self.drop_heads(list(self._heads))
        self.give(state)

    @override
    def take(self, clients: Collection[int]) -> State:
        state: State = {}
        for client in clients:
            head_weights, worker = self._heads.pop(client, None), self._workers.pop(client, None)
            if worker is not None:
                state[str(client)] = worker.state()
            elif head_weights is not None:
                state[str(client)] = {"body": None, "head": {"weights": head_weights}}
            self.blueprint.memory.release(head_weights)
        return state

    @override
    def give(self, state: State) -> None:
        for client, client_state in state.items():
            if client_state["body"] is None:
                self._heads[int(client)] = self.blueprint.memory.keep(client_state["head"]["weights"])
            else:
                self.worker(int(client)).load_state(client_state)

    @override
    def drop_heads(self, clients: Collection[int]) -> None:
        for client in clients:
            self.blueprint.memory.release(self._heads.pop(client, None))

    @override
    def forget(self) -> None:
        if self.blueprint.keeps_head:
            for client, worker in self._workers.items():
                head_weights = worker.weights("auxiliary")
                self._heads[client] = self.blueprint.memory.keep(head_weights, self._heads.get(client))
        self._workers.clear()

    @override
    def server_copies(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        seed: int,
        recorder: Recorder | None = None,
    ) -> "SequentialCopies":
        return SequentialCopies(
            module, self.blueprint.objective, optimizer, schedule, seed=seed, recorder=recorder
        )
