"""Clients in the same process; every message is counted as if it travelled."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import (
    LocalTraining,
    LocalWork,
    Part,
    StackedGradients,
    StackedUploads,
    StepResult,
    Upload,
)
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.weights_link import Delivery, Downlink
from fedsplit.state.by_client import ByClient
from fedsplit.state.state import State
from fedsplit.state.weights import StackedWeights, Weights
from fedsplit.transport.client_end import ClientEnd
from fedsplit.transport.cohort import CodedCohort
from fedsplit.transport.links import KIND_OF
from fedsplit.transport.tally import Tally
from fedsplit.transport.transport import Result, RunSetting, Stateful, Transport
from fedsplit.transport.wire import CodedGradients, Wire


class LocalTransport(Transport):
    """Cohorts of clients that an engine computes in this process.

    What is sent arrives exactly as its codec would decode it, and its bytes are counted.

    Args:
        run: setting of the run.
    """

    def __init__(self, run: RunSetting) -> None:
        super().__init__(run)
        self.looks_later = run.device.type != "cpu"
        self.client_end = ClientEnd(run, packs=False)
        self.downlinks = {part: Downlink(run.quantization.weights, run.device) for part in KIND_OF}

    @override
    def run_round(
        self, t: int, clients: Collection[int], train: Callable[[Cohort], Result], servers: Stateful
    ) -> Result:
        with torch.random.fork_rng(devices=[]):  # seeds of dropout stay in here
            cohort = self.cohort(t, clients)
            result = train(cohort)
            cohort.settle()
        return result

    @override
    def open(self, directory: Path) -> AbstractContextManager[object]:
        """Open the engine, which can compute for as long as the context is open."""
        return self.run.engine.open()

    def cohort(self, round: int, clients: Collection[int]) -> CodedCohort:
        """The cohort of a round."""
        with self.at_clients():
            self.run.engine.enter(sorted(clients))
        tally = Tally(self.run.ledger, round, looks_later=self.looks_later)
        return CodedCohort(self.run, self.downlinks, LocalWire(self, round, tally), clients)

    @override
    def forget_clients(self) -> None:
        """Drop what clients keep from round to round (see `Engine.forget`), and what they rounded away."""
        self.run.engine.forget()
        self.client_end.forget()

    @override
    def state(self) -> State:
        """State of both ends of every link: shared weights, and what was rounded away."""
        up = self.client_end.state()
        links = {part: {"down": self.downlinks[part].state(), "up": up[part]} for part in KIND_OF}
        return {"clients": ByClient(self.run.engine.state()), "links": links}

    @override
    def load_state(self, state: State) -> None:
        self.run.engine.load_state(state["clients"])
        for part, link in state["links"].items():
            self.downlinks[part].load_state(link["down"])
        self.client_end.load_state({part: link["up"] for part, link in state["links"].items()})


class LocalWire(Wire):
    """Hands messages to the engine as they would be decoded; stacks that nothing is done to stay stacks.

    Args:
        transport: transport of the clients.
        round: number of the round.
        tally: counts what comes.
    """

    packs = False

    def __init__(self, transport: LocalTransport, round: int, tally: Tally) -> None:
        super().__init__(round, tally)
        self._run, self._end, self._at_clients = transport.run, transport.client_end, transport.at_clients
        self._has_tail = transport.run.trunk_shape is not None

    @override
    def samples(self, client: int) -> int:
        return self._run.sample_counts[client]

    @override
    def install(self, part: Part, deliveries: Mapping[int, Delivery]) -> None:
        with self._at_clients():
            self._run.engine.install(part, {client: each.weights for client, each in deliveries.items()})

    @override
    def forward(self, clients: Sequence[int], step: int, *, evaluating: bool) -> Sequence[Upload]:
        engine = self._run.engine
        with self._at_clients():
            uploads = (engine.forward_evaluating if evaluating else engine.forward)(clients, self.round, step)
        return self._receive(uploads)

    @override
    def backward(self, step: int, dz: CodedGradients) -> None:
        arrived: Mapping[int, Tensor] = dz if isinstance(dz, StackedGradients) else self._decode(dz)
        with self._at_clients():
            self._run.engine.backward(self.round, step, arrived)

    def _decode(self, dz: Iterable[tuple[int, SentTensor]]) -> dict[int, Tensor]:
        padded = self._run.quantization.positions.pad
        return {client: padded(coded.transfer.decoded, self.labels.get(client)) for client, coded in dz}

    @override
    def probe(
        self, step: int, dz: Iterable[tuple[int, SentTensor]], seeds: Sequence[int]
    ) -> Mapping[int, Tensor]:
        arrived, slopes = self._decode(dz), {}
        with self._at_clients():
            answered = self._run.engine.probe(self.round, step, arrived, seeds)
        for client in arrived:
            coded = self._end.slopes(answered[client], client)
            self.tally.message("up", "scalars", client, coded, step)
            slopes[client] = coded.transfer.decoded
        return slopes

    @override
    def move(
        self,
        clients: Sequence[int],
        step: int,
        seeds: Sequence[int],
        slopes: SentTensor,
        unaware: Collection[int],
    ) -> None:
        with self._at_clients():
            self._run.engine.move(clients, self.round, step, seeds, slopes.transfer.decoded)

    @override
    def step_tail(self, step: int, h: CodedGradients) -> StepResult:
        outputs: Mapping[int, Tensor]
        if isinstance(h, StackedGradients):
            outputs = h
        else:
            outputs = {client: coded.transfer.decoded for client, coded in h}
        with self._at_clients():
            losses, dh = self._run.engine.step_tail(self.round, step, outputs)
        if isinstance(dh, StackedGradients) and self._run.quantization.codec("trunk_gradient").lossless:
            for clients, rows in dh.stacks:
                self.tally.rows("up", "cut_gradient", clients, SentTensor.sent_exactly(rows), step)
            return losses, dh
        arrived = {}
        for client, own in dh.items():
            with self._at_clients():
                coded = self._end.trunk_gradient(own, client, self.round, step)
            self.tally.message("up", "cut_gradient", client, coded, step)
            arrived[client] = coded.transfer.decoded
        return losses, arrived

    @override
    def train_local(self, clients: Sequence[int], work: LocalWork) -> LocalTraining:
        with self._at_clients():
            trained = self._run.engine.train_local(clients, self.round, work)
        return LocalTraining(self._arriving(iter(trained.uploads)), trained.losses)

    @override
    def observe(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        with self._at_clients():
            found = [
                {name: tensor.detach().clone() for name, tensor in own.items()}
                for own in self._run.engine.weights(part, clients)
            ]
        self.tally.count_observation(sum(tensor.nbytes for own in found for tensor in own.values()))
        return found

    @override
    def weights(self, part: Part, clients: Sequence[int], held: Mapping[int, Weights]) -> Sequence[Weights]:
        kind = KIND_OF[part]
        with self._at_clients():
            own = self._run.engine.weights(part, clients)
        if isinstance(own, StackedWeights) and self._run.quantization.weights.lossless:
            for positions, tensors in own.stacks:
                senders = [clients[position] for position in positions]
                for rows in tensors.values():
                    self.tally.rows("up", kind, senders, SentTensor.sent_exactly(rows))
            return own
        arrived = []
        for client, weights in zip(clients, own, strict=True):
            with self._at_clients():
                delivery = self._end.weights(part, client, weights, held.get(client), self.round)
            for coded in delivery.tensors:
                self.tally.message("up", kind, client, coded)
            arrived.append(delivery.weights)
        return arrived

    def _receive(self, uploads: Sequence[Upload]) -> Sequence[Upload]:
        if isinstance(uploads, StackedUploads) and self._run.quantization.smashed.lossless:
            for stack in uploads.stacks:
                self.tally.rows("up", "smashed", stack.clients, SentTensor.sent_exactly(stack.z), stack.step)
                if not self._has_tail:
                    self.tally.rows("up", "labels", stack.clients, self._end.labels(stack.y), stack.step)
            if self._has_tail:
                return StackedUploads([stack.without_labels() for stack in uploads.stacks])
            return uploads
        return [self._receive_one(upload) for upload in uploads]

    def _arriving(self, uploads: Iterator[Upload]) -> Iterator[Upload]:
        """Uploads that clients may only make when they are asked for the next one."""
        while True:
            with self._at_clients():
                upload = next(uploads, None)
            if upload is None:
                return
            yield self._receive_one(upload)

    def _receive_one(self, upload: Upload) -> Upload:
        with self._at_clients():
            z = self._end.code_smashed(upload, self.round)
            self.tally.message("up", "smashed", upload.client, z, upload.step)
        if self._has_tail:
            return replace(upload.without_labels(), z=z.transfer.decoded)
        self.tally.message("up", "labels", upload.client, self._end.labels(upload.y), upload.step)
        positions = self._run.quantization.positions
        padded = positions.pad(z.transfer.decoded, upload.y, positions.padding)
        return Upload(upload.client, upload.step, padded, upload.y)
