"""The cohort of every transport: codes what goes down and counts it; a wire does the rest."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

from torch import Tensor
from typing_extensions import override

from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import (
    BroadcastGradients,
    LocalTraining,
    LocalWork,
    Part,
    StackedGradients,
    StackedUploads,
    StepResult,
    Upload,
)
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.quantization import TensorKind, rounding_seed
from fedsplit.quant.weights_link import Delivery, Downlink
from fedsplit.state.weights import Weights
from fedsplit.transport.links import (
    COUNTED_AS,
    KIND_OF,
    coded_tensor,
    exactly,
    receivers,
    seeds_tensor,
    sent_as,
    weights_seed,
)
from fedsplit.transport.transport import RunSetting
from fedsplit.transport.wire import CodedGradients, Wire


class CodedCohort(Cohort):
    """The clients of a round at the other end of a wire.

    Args:
        run: setting of the run.
        downlinks: server's ends of the links of each part, with what clients hold of it.
        wire: delivers, and tallies what comes back.
        clients: their numbers.
    """

    def __init__(
        self, run: RunSetting, downlinks: Mapping[Part, Downlink], wire: Wire, clients: Collection[int]
    ) -> None:
        self._seed, self._quantization = run.seed, run.quantization
        self._downlinks, self._wire, self._clients = downlinks, wire, sorted(clients)

    @property
    @override
    def clients(self) -> Sequence[int]:
        return self._clients

    @property
    @override
    def sample_counts(self) -> Sequence[int]:
        return [self._wire.samples(client) for client in self._clients]

    @override
    def select(self, clients: Collection[int]) -> "CodedCohort":
        selected = copy(self)
        selected._clients = sorted(clients)
        return selected

    @override
    def install(self, part: Part, weights: Weights) -> None:
        seed = weights_seed(self._seed, "down", part, 0, self._wire.round)
        with sent_as(KIND_OF[part], None):
            sent = self._downlinks[part].share(weights, self._clients, self._wire.round, seed)
        self._install(part, sent)

    @override
    def install_own(self, part: Part, weights: Mapping[int, Weights]) -> None:
        sent = {}
        for client in self._clients:
            seed = weights_seed(self._seed, "down", part, client, self._wire.round)
            with sent_as(KIND_OF[part], client):
                sent[client] = self._downlinks[part].send(client, weights[client], seed)
        self._install(part, sent)

    def _install(self, part: Part, sent: Mapping[int, Delivery]) -> None:
        for delivery, clients in receivers(sent):
            for coded in delivery.tensors:
                self._wire.tally.copies(KIND_OF[part], clients, coded)
        self._wire.install(part, sent)

    @override
    def forward(self, step: int, *, evaluating: bool = False) -> Sequence[Upload]:
        uploads = self._wire.forward(self._clients, step, evaluating=evaluating)
        if self._quantization.positions.lengths is not None:
            self._wire.labels = {upload.client: upload.y for upload in uploads}
        return uploads if self._quantization.trunk_output is None else self._leading_back(uploads, step)

    def _leading_back(self, uploads: Sequence[Upload], step: int) -> Sequence[Upload]:
        tail = partial(self.step_tail, step)
        if isinstance(uploads, StackedUploads):
            return StackedUploads([replace(stack, tail=tail) for stack in uploads.stacks])
        return [replace(upload, tail=tail) for upload in uploads]

    @override
    def backward(self, step: int, dz: Mapping[int, Tensor]) -> None:
        self._wire.backward(step, self._code(step, dz, "cut_gradient"))

    @override
    def step_tail(self, step: int, h: Mapping[int, Tensor]) -> StepResult:
        return self._wire.step_tail(step, self._code(step, h, "trunk_output"))

    def _code(self, step: int, tensors: Mapping[int, Tensor], of: TensorKind) -> CodedGradients:
        """Tensors that go down, counted."""
        as_they_are = self._quantization.codec(of).lossless and not self._wire.packs
        if not as_they_are or not isinstance(tensors, StackedGradients):
            return self._code_each(step, tensors, of)
        for clients, stack in tensors.stacks:
            self._wire.tally.rows("down", COUNTED_AS[of], clients, SentTensor.sent_exactly(stack), step)
        return tensors

    def _code_each(
        self, step: int, tensors: Mapping[int, Tensor], of: TensorKind
    ) -> Iterator[tuple[int, SentTensor]]:
        codec, kind = self._quantization.codec(of), COUNTED_AS[of]
        shared = tensors if isinstance(tensors, BroadcastGradients) else None
        for client, tensor in (shared.gradients if shared else tensors).items():
            meant = self._quantization.positions.pack(tensor, self._wire.labels.get(client))
            seed = rounding_seed(self._seed, of, client, self._wire.round, step)
            with sent_as(kind, client):
                coded = coded_tensor(meant, codec, seed, packs=self._wire.packs)
            self._wire.tally.message("down", kind, client, coded, step)
            yield client, coded
        if shared is not None:
            first = min(shared.receivers)  # a client that is sent no gradient of its own
            seed = rounding_seed(self._seed, of, first, self._wire.round, step)
            with sent_as(kind, None):
                coded = coded_tensor(shared.broadcast, codec, seed, packs=self._wire.packs)
            self._wire.tally.broadcast(kind, shared.receivers, coded, step)
            yield from ((client, coded) for client in shared.receivers)

    @override
    def probe(self, step: int, dz: Mapping[int, Tensor], seeds: Sequence[int]) -> Mapping[int, Tensor]:
        self._wire.probe_step = (step, list(dz))
        sent = SentTensor.sent_exactly(seeds_tensor(seeds))
        for client in dz:
            self._wire.tally.message("down", "seeds", client, sent, step)
        return self._wire.probe(step, self._code_each(step, dz, "cut_gradient"), seeds)

    @override
    def move(self, step: int, seeds: Sequence[int], slopes: Tensor) -> None:
        with sent_as("scalars", None):
            coded = exactly(slopes, packs=self._wire.packs)
        probed, aware = self._wire.probe_step
        unaware = [client for client in self._clients if probed != step or client not in aware]
        sent = SentTensor.sent_exactly(seeds_tensor(seeds))
        for client in self._clients:
            self._wire.tally.message("down", "scalars", client, coded, step)
            if client in unaware:
                self._wire.tally.message("down", "seeds", client, sent, step)
        self._wire.move(self._clients, step, seeds, coded, unaware)

    @override
    def train_local(self, work: LocalWork) -> LocalTraining:
        return self._wire.train_local(self._clients, work)

    @override
    def observe(self, part: Part) -> Sequence[Weights]:
        return self._wire.observe(part, self._clients)

    @override
    def weights(self, part: Part) -> Sequence[Weights]:
        """Upload weights, in the order of `clients`.

        Raises:
            NonFinite: a client's weights are not finite.
        """
        held = {}
        if not self._quantization.weights.up.lossless:
            found = {client: self._downlinks[part].weights_at(client) for client in self._clients}
            held = {client: weights for client, weights in found.items() if weights is not None}
        return self._wire.weights(part, self._clients, held)

    def settle(self) -> None:
        """Wait, at the end of the round, for what was not waited for: see `Tally.settle`."""
        self._wire.tally.settle()
