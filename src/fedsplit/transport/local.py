"""Clients in the same process; every message is counted as if it travelled."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import LocalTraining, Part, Upload
from fedsplit.quant.codec import NotFinite
from fedsplit.quant.coded import Coded
from fedsplit.quant.labels import Labels
from fedsplit.quant.quantization import Quantization, TensorKind, rounding_seed
from fedsplit.quant.weights_link import Delivery, Downlink, Uplink
from fedsplit.randomness import seed_of
from fedsplit.results.ledger import Direction, Kind, Ledger
from fedsplit.state import State
from fedsplit.weights import Weights

Answer = TypeVar("Answer")

_KINDS: dict[Part, Kind] = {
    "client": "client_weights",
    "auxiliary": "auxiliary_weights",
    "full": "full_weights",
}


class LocalTransport:
    """Makes the workers of this process when they first take part, and cohorts of them.

    What is sent arrives exactly as its codec would decode it, and its bytes are counted.

    Args:
        new_worker: makes the worker of a client.
        sample_counts: training samples of every client.
        num_classes: decides how many bytes a label costs.
        quantization: a codec for each kind of message.
        device: where weights are.
        seed: of what codecs draw.
        ledger: where bytes are counted.
    """

    def __init__(
        self,
        new_worker: Callable[[int], ClientWorker],
        *,
        sample_counts: Sequence[int],
        num_classes: int,
        quantization: Quantization,
        device: torch.device,
        seed: int,
        ledger: Ledger,
    ) -> None:
        self._new_worker = new_worker
        self.sample_counts = sample_counts
        self.labels = Labels(num_classes)
        self.quantization = quantization
        self.seed = seed
        self.ledger = ledger
        self.client_seconds = 0.0
        """Seconds spent in clients' verbs; the round loop sets it back."""
        self._workers: dict[int, ClientWorker] = {}
        self.downlinks = {part: Downlink(quantization.weights, device) for part in _KINDS}
        self.uplinks = {part: Uplink(quantization.weights, device) for part in _KINDS}

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

    def links_state(self) -> State:
        """What both ends of every link keep: shared weights, and what was rounded away."""
        return {
            part: {"down": self.downlinks[part].state(), "up": self.uplinks[part].state()} for part in _KINDS
        }

    def load_links_state(self, state: State) -> None:
        """Take over what `links_state` gave."""
        for part in _KINDS:
            if part in state:
                self.downlinks[part].load_state(state[part]["down"])
                self.uplinks[part].load_state(state[part]["up"])


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
        seed = self._seed("down", _KINDS[part])
        with self._sent_as(_KINDS[part], None):
            arrived = self._transport.downlinks[part].share(weights, self._clients, self._round, seed)
        self._install(part, arrived)

    def install_each(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """See `Cohort.install_each`."""
        arrived = {}
        for client in self._clients:
            seed = self._seed("down", _KINDS[part], client)
            with self._sent_as(_KINDS[part], client):
                arrived[client] = self._transport.downlinks[part].send(client, weights[client], seed)
        self._install(part, arrived)

    def _install(self, part: Part, arrived: Mapping[int, Delivery]) -> None:
        for delivery in arrived.values():
            self._count("down", _KINDS[part], delivery.coded)
        self._ask(lambda worker: worker.install(part, arrived[worker.client].weights))

    def forward(self, step: int) -> list[Upload]:
        """See `Cohort.forward`."""
        answers = self._ask(lambda worker: worker.forward(self._round, step))
        return self._received(upload for upload in answers if upload is not None)

    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        """See `Cohort.backward`."""
        arrived = {
            client: self._arrived("down", "cut_gradient", client, step, gradient)
            for client, gradient in dz.items()
        }
        self.select(dz)._ask(lambda worker: worker.backward(self._round, step, arrived[worker.client]))

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
        kind, downlink, uplink = _KINDS[part], self._transport.downlinks[part], self._transport.uplinks[part]
        arrived = []
        for client, own in zip(self._clients, self._ask(lambda worker: worker.weights(part)), strict=True):
            seed = self._seed("up", kind, client)
            with self._transport.at_clients(), self._sent_as(kind, client):
                delivery = uplink.send(client, own, downlink.held(client), seed)
            self._count("up", kind, delivery.coded)
            arrived.append(delivery.weights)
        return arrived

    def _received(self, uploads: Iterable[Upload]) -> list[Upload]:
        received = []
        for upload in uploads:
            with self._transport.at_clients():
                z = self._arrived("up", "smashed", upload.client, upload.step, upload.z)
            size = self._transport.labels.size(upload.y)
            self._transport.ledger.add(self._round, "up", "labels", size, values=len(upload.y))
            received.append(Upload(upload.client, upload.step, z, upload.y))
        return received

    def _arrived(self, direction: Direction, kind: TensorKind, client: int, step: int, x: Tensor) -> Tensor:
        """Smashed data or cut gradients as the other end decodes them."""
        x = x.contiguous()
        codec = self._transport.quantization.codec(kind)
        seed = rounding_seed(self._transport.seed, kind, client, self._round, step)
        with self._sent_as(kind, client):
            simulated = codec.simulate(x, seed=seed)
        self._count(direction, kind, [Coded(x, simulated)])
        return simulated.decoded

    def _seed(self, direction: Direction, kind: Kind, client: int = 0) -> int:
        purpose = f"rounding of {kind} {direction}"
        return seed_of(self._transport.seed, purpose, client=client, round=self._round)

    @contextmanager
    def _sent_as(self, kind: Kind, client: int | None) -> Iterator[None]:
        try:
            yield
        except NotFinite as error:
            raise NonFinite(kind, client) from error

    def _count(self, direction: Direction, kind: Kind, coded: Sequence[Coded]) -> None:
        for each in coded:
            self._transport.ledger.add(
                self._round,
                direction,
                kind,
                each.arrived.size,
                values=each.meant.numel(),
                signal=each.signal,
                noise=each.noise,
            )
