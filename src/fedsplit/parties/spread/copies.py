"""Copies of the server model, each at the worker that computes its client."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from typing_extensions import override

from fedsplit.parties.messages import BatchLoss, Upload
from fedsplit.parties.server_copies import ServerCopies
from fedsplit.parties.spread.engine import SpreadEngine
from fedsplit.state.by_client import ByClient
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


class SpreadCopies(ServerCopies):
    """Copies that are stepped one by one, by many workers; see `ServerCopies`.

    Args:
        engine: engine that knows which worker computes a client.
    """

    def __init__(self, engine: SpreadEngine) -> None:
        self._engine, self._workers = engine, engine.workers
        self._homes: dict[int, int] = {}
        """The worker that has a client's copy."""
        self._local_state: State = {}
        """States, by client, that no worker was given yet."""

    @override
    def load(self, samples: Mapping[int, int], weights: Weights) -> None:
        by_worker = self._engine.by_worker(list(samples))
        leaving: dict[int, list[int]] = {}
        for home, clients in by_worker.items():
            for client in clients:
                if (before := self._homes.get(client, home)) != home:
                    leaving.setdefault(before, []).append(client)
        pending = [
            self._workers.ask(worker, "take_copies", clients_of_worker)
            for worker, clients_of_worker in leaving.items()
        ]
        for state in self._engine.gather(pending):
            self._local_state |= state
        shared_weights: object = self._workers.share(weights) if len(by_worker) > 1 else weights
        for home, clients in by_worker.items():
            names = map(str, clients)
            states = {name: self._local_state.pop(name) for name in names if name in self._local_state}
            self._engine.tell(home, "load_copies", clients, states, shared_weights)
            self._homes |= dict.fromkeys(clients, home)

    @override
    def step(self, round: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], dict[int, Tensor]]:
        by_client = {upload.client: upload for upload in uploads}
        by_worker = self._engine.by_worker(list(by_client))
        pending = [
            self._workers.ask(worker, "step_copies", round, [by_client[client] for client in clients])
            for worker, clients in by_worker.items()
        ]
        losses: dict[int, BatchLoss] = {}
        gradients: dict[int, Tensor] = {}
        for step_losses, dz in self._engine.gather(pending):
            losses |= {loss.clients[0]: loss for loss in step_losses}
            gradients |= dz
        return [losses[client] for client in by_client], {client: gradients[client] for client in by_client}

    @override
    def weights(self, clients: Sequence[int]) -> list[Weights]:
        by_worker = self._engine.by_worker(clients)
        pending = [
            self._workers.ask(worker, "copies_weights", clients_of_worker)
            for worker, clients_of_worker in by_worker.items()
        ]
        by_client: dict[int, Weights] = {}
        for clients_of_worker, weights in zip(by_worker.values(), self._engine.gather(pending), strict=True):
            by_client |= dict(zip(clients_of_worker, weights, strict=True))
        return [by_client[client] for client in clients]

    @override
    def state(self) -> State:
        copies = dict(self._local_state)
        pending = [self._workers.ask(worker, "copies_state") for worker in self._workers.present]
        for state in self._engine.gather(pending):
            copies |= state
        return ByClient(copies)

    @override
    def load_state(self, state: State) -> None:
        self.forget()
        self._local_state = dict(state)

    @override
    def forget(self) -> None:
        self._homes, self._local_state = {}, {}
        for worker in self._workers.present:
            self._engine.tell(worker, "forget_copies")
