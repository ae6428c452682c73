"""Clients in the same process; every message is counted as if it travelled."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import LocalTraining, Part, Upload
from fedsplit.results.ledger import Direction, Kind, Ledger
from fedsplit.state import State
from fedsplit.weights import Weights, is_finite, num_bytes

Answer = TypeVar("Answer")

_KINDS: dict[Part, Kind] = {
    "client": "client_weights",
    "auxiliary": "auxiliary_weights",
    "full": "full_weights",
}


class LocalTransport:
    """Makes the workers of this process when they first take part, and cohorts of them.

    Args:
        new_worker: makes the worker of a client.
        sample_counts: training samples of every client.
        num_classes: decides how many bytes a label costs.
        ledger: where bytes are counted.
    """

    def __init__(
        self,
        new_worker: Callable[[int], ClientWorker],
        *,
        sample_counts: Sequence[int],
        num_classes: int,
        ledger: Ledger,
    ) -> None:
        self._new_worker = new_worker
        self.sample_counts = sample_counts
        self.label_bytes = 1 if num_classes <= 256 else 2
        self.ledger = ledger
        self.client_seconds = 0.0
        """Seconds spent in clients' verbs; the round loop sets it back."""
        self._workers: dict[int, ClientWorker] = {}

    @contextmanager
    def at_clients(self) -> Iterator[None]:
        """Time what runs at clients."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.client_seconds += time.perf_counter() - start

    def worker(self, client: int) -> ClientWorker:
        """The worker of a client."""
        if client not in self._workers:
            self._workers[client] = self._new_worker(client)
        return self._workers[client]

    def cohort(self, round: int, clients: Collection[int]) -> "LocalCohort":
        """The cohort of a round."""
        return LocalCohort(self, round, clients)

    def state(self) -> State:
        """State of every worker there is, by client."""
        return {str(client): worker.state() for client, worker in self._workers.items()}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._workers.clear()
        for client, kept in state.items():
            self.worker(int(client)).load_state(kept)


class LocalCohort(Cohort):
    """See `Cohort`; clients run one after the other."""

    def __init__(self, transport: LocalTransport, round: int, clients: Collection[int]) -> None:
        self._transport, self._round = transport, round
        self._clients = sorted(clients)

    @property
    def clients(self) -> Sequence[int]:
        """See `Cohort.clients`."""
        return self._clients

    @property
    def sample_counts(self) -> Sequence[int]:
        """See `Cohort.sample_counts`."""
        return [self._transport.sample_counts[client] for client in self._clients]

    def select(self, clients: Collection[int]) -> "LocalCohort":
        """See `Cohort.select`."""
        return LocalCohort(self._transport, self._round, clients)

    def _ask(self, verb: Callable[[ClientWorker], Answer]) -> list[Answer]:
        """Every client's answer to a verb, in client order, whatever the order they were asked in."""
        with self._transport.at_clients():
            return [verb(self._transport.worker(client)) for client in self._clients]

    def install(self, part: Part, weights: Weights) -> None:
        """See `Cohort.install`."""
        self.install_each(part, dict.fromkeys(self._clients, weights))

    def install_each(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """See `Cohort.install_each`."""
        for client in self._clients:
            self._count("down", _KINDS[part], num_bytes(weights[client]))
        self._ask(lambda worker: worker.install(part, weights[worker.client]))

    def forward(self, step: int) -> list[Upload]:
        """See `Cohort.forward`."""
        answers = self._ask(lambda worker: worker.forward(self._round, step))
        return self._received(upload for upload in answers if upload is not None)

    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        """See `Cohort.backward`."""
        for gradient in dz.values():
            self._count("down", "cut_gradient", gradient.numel() * gradient.element_size())
        self.select(dz)._ask(
            lambda worker: worker.backward(self._round, step, dz[worker.client].contiguous())
        )

    def train_local(
        self,
        *,
        train_head: bool,
        upload_interval: int | None = None,
        skip_first_upload: Collection[int] = (),
    ) -> LocalTraining:
        """See `Cohort.train_local`."""
        trained = self._ask(
            lambda worker: worker.train_local(
                self._round,
                train_head_too=train_head,
                upload_interval=upload_interval,
                skip_first_upload=worker.client in skip_first_upload,
            )
        )
        uploads = self._received(upload for local in trained for upload in local.uploads)
        return LocalTraining(uploads, [loss for local in trained for loss in local.losses])

    def weights(self, part: Part) -> list[Weights]:
        """See `Cohort.weights`.

        Raises:
            NonFinite: a client's weights are not finite.
        """
        received = self._ask(lambda worker: worker.weights(part))
        for client, weights in zip(self._clients, received, strict=True):
            if not is_finite(weights):
                raise NonFinite(_KINDS[part], client)
            self._count("up", _KINDS[part], num_bytes(weights))
        return received

    def _received(self, uploads: Iterable[Upload]) -> list[Upload]:
        received = []
        for upload in uploads:
            z = upload.z.contiguous()
            self._count("up", "smashed", z.numel() * z.element_size())
            self._count("up", "labels", len(upload.y) * self._transport.label_bytes)
            received.append(Upload(upload.client, upload.step, z, upload.y))
        return received

    def _count(self, direction: Direction, kind: Kind, size: int) -> None:
        self._transport.ledger.add(self._round, direction, kind, size)
