"""Clients in the same process; every message is counted as if it travelled."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import LocalTraining, Part, StackedGradients, StackedUploads, Upload
from fedsplit.quant.codecs.labels import Labels
from fedsplit.quant.coded import Coded
from fedsplit.quant.quantization import TensorKind, rounding_seed
from fedsplit.quant.weights_link import Delivery, Downlink, Uplink
from fedsplit.recording.ledger import Direction, Kind
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights
from fedsplit.transport.links import KIND_OF, count, receivers, sent_as, weights_seed
from fedsplit.transport.transport import Result, Run, Stateful, Transport


class LocalTransport(Transport):
    """Cohorts of clients that an engine computes in this process.

    What is sent arrives exactly as its codec would decode it, and its bytes are counted.

    Args:
        run: whose clients.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.engine, self.quantization, self.ledger = run.engine, run.quantization, run.ledger
        self.seed = run.seed
        self.labels = Labels(run.dataset.num_classes)
        self.looks_later = run.device.type != "cpu"
        """Whether messages are looked at once a round, and not when they are sent."""
        self._watched: list[tuple[Kind, int | None, Tensor]] = []
        self.downlinks = {part: Downlink(run.quantization.weights, run.device) for part in KIND_OF}
        self.uplinks = {part: Uplink(run.quantization.weights, run.device) for part in KIND_OF}

    @contextmanager
    def at_clients(self) -> Iterator[None]:
        """Time what runs at clients."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.client_seconds += time.perf_counter() - start

    def run_round(
        self, t: int, clients: Collection[int], train: Callable[[Cohort], Result], servers: Stateful
    ) -> Result:
        """See `Transport.run_round`."""
        with torch.random.fork_rng(devices=[]):  # what dropout is seeded with stays in here
            result = train(self.cohort(t, clients))
            self.settle(t)
        return result

    def cohort(self, round: int, clients: Collection[int]) -> "LocalCohort":
        """The cohort of a round."""
        with self.at_clients():
            self.engine.enter(sorted(clients))
        return LocalCohort(self, round, clients)

    def watch(self, kind: Kind, client: int | None, sent: Tensor) -> None:
        """Look at the end of the round whether what was sent is finite: a GPU is not waited for before."""
        if self.looks_later and sent.is_floating_point():
            self._watched.append((kind, client, sent.isfinite().all()))

    def settle(self, round: int) -> None:
        """At the end of a round: everything that had to be waited for.

        Raises:
            NonFinite: a message was not finite.
        """
        watched, self._watched = self._watched, []
        fine = torch.stack([flag for _, _, flag in watched]).tolist() if watched else []
        for (kind, client, _), finite in zip(watched, fine, strict=True):
            if not finite:
                raise NonFinite(kind, client)
        self.ledger.settle(round)

    def forget_clients(self) -> None:
        """Drop what clients keep from round to round (see `Engine.forget`), and what they rounded away."""
        self.engine.forget()
        for uplink in self.uplinks.values():
            uplink.forget()

    def state(self) -> State:
        """See `Transport.state`: of both ends of every link, shared weights and what was rounded away."""
        links = {
            part: {"down": self.downlinks[part].state(), "up": self.uplinks[part].state()} for part in KIND_OF
        }
        return {"clients": self.engine.state(), "links": links}

    def load_state(self, state: State) -> None:
        """See `Transport.load_state`."""
        self.engine.load_state(state["clients"])
        for part, link in state["links"].items():
            self.downlinks[part].load_state(link["down"])
            self.uplinks[part].load_state(link["up"])


class LocalCohort(Cohort):
    """See `Cohort`."""

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
        return [self._transport.run.sample_counts[client] for client in self._clients]

    def select(self, clients: Collection[int]) -> "LocalCohort":
        """See `Cohort.select`."""
        return LocalCohort(self._transport, self._round, clients)

    def install(self, part: Part, weights: Weights) -> None:
        """See `Cohort.install`."""
        seed = self._seed("down", part)
        with sent_as(KIND_OF[part], None):
            arrived = self._transport.downlinks[part].share(weights, self._clients, self._round, seed)
        self._install(part, arrived)

    def install_each(self, part: Part, weights: Mapping[int, Weights]) -> None:
        """See `Cohort.install_each`."""
        arrived = {}
        for client in self._clients:
            seed = self._seed("down", part, client)
            with sent_as(KIND_OF[part], client):
                arrived[client] = self._transport.downlinks[part].send(client, weights[client], seed)
        self._install(part, arrived)

    def _install(self, part: Part, arrived: Mapping[int, Delivery]) -> None:
        for delivery, clients in receivers(arrived):
            self._count("down", KIND_OF[part], clients, delivery.coded)
        with self._transport.at_clients():
            self._transport.engine.install(part, {c: delivery.weights for c, delivery in arrived.items()})

    def forward(self, step: int) -> Sequence[Upload]:
        """See `Cohort.forward`."""
        with self._transport.at_clients():
            uploads = self._transport.engine.forward(self._clients, self._round, step)
        return self._received(uploads)

    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        """See `Cohort.backward`."""
        arrived: Mapping[int, Tensor]
        if isinstance(dz, StackedGradients) and self._transport.quantization.cut_gradient.lossless:
            for clients, stack in dz.stacks:
                self._arrived_exactly("down", "cut_gradient", clients, stack, step)
            arrived = dz
        else:
            arrived = {
                client: self._arrived("down", "cut_gradient", client, step, gradient)
                for client, gradient in dz.items()
            }
        with self._transport.at_clients():
            self._transport.engine.backward(self._round, step, arrived)

    def train_local(
        self,
        *,
        train_head: bool,
        upload_interval: int | None = None,
        skip_first_upload: Collection[int] = (),
    ) -> LocalTraining:
        """See `Cohort.train_local`."""
        with self._transport.at_clients():
            trained = self._transport.engine.train_local(
                self._clients,
                self._round,
                train_head_too=train_head,
                upload_interval=upload_interval,
                skip_first_upload=skip_first_upload,
            )
        return LocalTraining(self._received(trained.uploads), trained.losses)

    def weights(self, part: Part) -> Sequence[Weights]:
        """See `Cohort.weights`.

        Raises:
            NonFinite: a client's weights are not finite.
        """
        kind, downlink, uplink = KIND_OF[part], self._transport.downlinks[part], self._transport.uplinks[part]
        with self._transport.at_clients():
            sent = self._transport.engine.weights(part, self._clients)
        if isinstance(sent, StackedWeights) and self._transport.quantization.weights.lossless:
            for positions, tensors in sent.stacks:
                clients = [self._clients[position] for position in positions]
                for rows in tensors.values():
                    self._arrived_exactly("up", kind, clients, rows)
            return sent
        arrived = []
        for client, own in zip(self._clients, sent, strict=True):
            seed = self._seed("up", part, client)
            with self._transport.at_clients(), sent_as(kind, client):
                delivery = uplink.send(client, own, downlink.held(client), seed)
            self._count("up", kind, [client], delivery.coded, whose=client)
            arrived.append(delivery.weights)
        return arrived

    def _received(self, uploads: Sequence[Upload]) -> Sequence[Upload]:
        transport = self._transport
        if isinstance(uploads, StackedUploads) and transport.quantization.smashed.lossless:
            for stack in uploads.stacks:
                self._arrived_exactly("up", "smashed", stack.clients, stack.z, stack.step)
                self._count_labels(stack.clients, stack.step, stack.y)
            return uploads
        received = []
        for upload in uploads:
            with self._transport.at_clients():
                z = self._arrived("up", "smashed", upload.client, upload.step, upload.z)
            self._count_labels([upload.client], upload.step, upload.y)
            received.append(Upload(upload.client, upload.step, z, upload.y))
        return received

    def _arrived(self, direction: Direction, kind: TensorKind, client: int, step: int, x: Tensor) -> Tensor:
        """Smashed data or cut gradients as the other end decodes them."""
        x = x.contiguous()
        codec = self._transport.quantization.codec(kind)
        seed = rounding_seed(self._transport.seed, kind, client, self._round, step)
        with sent_as(kind, client):
            simulated = codec.simulate(x, seed=seed)
        self._count(direction, kind, [client], [Coded(x, simulated)], step=step, whose=client)
        return simulated.decoded

    def _arrived_exactly(
        self, direction: Direction, kind: Kind, clients: Sequence[int], rows: Tensor, step: int = 0
    ) -> None:
        """Count the messages of many clients, a row each, that nothing is done to."""
        if self._transport.looks_later:
            for client, row in zip(clients, rows.unbind(), strict=True):
                self._transport.watch(kind, client, row)
        elif rows.is_floating_point() and not rows.sum().isfinite():
            bad = (~rows.flatten(1).isfinite().all(1)).nonzero().flatten()
            if len(bad):
                raise NonFinite(kind, clients[int(bad[0])])
        size = rows.numel() * rows.element_size()
        self._transport.ledger.add(
            self._round, direction, kind, size, clients=clients, step=step, values=rows.numel()
        )

    def _count_labels(self, clients: Sequence[int], step: int, y: Tensor) -> None:
        size = self._transport.labels.size(y)
        self._transport.ledger.add(
            self._round, "up", "labels", size, clients=clients, step=step, values=y.numel()
        )

    def _seed(self, direction: Direction, part: Part, client: int = 0) -> int:
        return weights_seed(self._transport.seed, direction, part, client, self._round)

    def _count(
        self,
        direction: Direction,
        kind: Kind,
        clients: Sequence[int],
        coded: Sequence[Coded],
        *,
        step: int = 0,
        whose: int | None = None,
    ) -> None:
        for each in coded:
            self._transport.watch(kind, whose, each.meant)
        count(self._transport.ledger, self._round, direction, kind, coded, clients=clients, step=step)
