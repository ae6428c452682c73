"""The server's side of the verbs: coded messages go to the hub, and what clients answered is tallied."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.parties.messages import (
    BatchLoss,
    LocalTraining,
    LocalWork,
    Part,
    StackedGradients,
    StepResult,
    Upload,
)
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.weights_link import Delivery, add_difference
from fedsplit.recording.ledger import Kind
from fedsplit.state.weights import Weights
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.expectations import PARTS, Expectations
from fedsplit.transport.grpc.protocol.packing import Packed, pack, pack_weights
from fedsplit.transport.grpc.server.hub import Hub
from fedsplit.transport.grpc.server.streams import Answer
from fedsplit.transport.links import KIND_OF, exactly, receivers, seeds_tensor
from fedsplit.transport.tally import Tally
from fedsplit.transport.wire import CodedGradients, Wire

_UPLOADED: dict[str, Kind] = {"z": "smashed", "y": "labels"}


class GrpcWire(Wire):
    """Sends the verbs of a round to clients that have dialled in; `answers` is as `Hub.answers`."""

    packs = True

    def __init__(
        self,
        round: int,
        tally: Tally,
        *,
        hub: Hub,
        expectations: Expectations,
        device: torch.device,
        answers: Callable[[Iterable[int]], dict[int, list[Answer]]],
    ) -> None:
        super().__init__(round, tally)
        self._hub, self._expectations, self._device, self._answers = hub, expectations, device, answers

    def begin(self, clients: Sequence[int], after: Mapping[int, int]) -> None:
        """Let clients begin the round with the state that each has after so many rounds."""
        self._hub.begin(self.round, clients, after)
        self._answers(clients)

    def keep(self, clients: Sequence[int], needed: Callable[[int], int], *, durable: bool) -> None:
        """Let clients keep their state after the round; see `pb.Keep`."""
        for client in clients:
            asked = pb.Keep(rounds=self.round + 1, needed=needed(client), durable=durable)
            self._hub.ask(client, keep=asked)
        self._answers(clients)

    @override
    def samples(self, client: int) -> int:
        return self._hub.samples(client)

    @override
    def install(self, part: Part, deliveries: Mapping[int, Delivery]) -> None:
        for delivery, clients in receivers(deliveries):
            packed = pack_weights(delivery, self._expectations, part)
            asked = pb.Install(part=PARTS[part], difference=delivery.difference)
            for client in clients:
                self._hub.ask(client, install=asked, tensors=packed)
        self._answers(deliveries)

    @override
    def forward(self, clients: Sequence[int], step: int, *, evaluating: bool) -> Sequence[Upload]:
        for client in clients:
            self._hub.ask(client, step=step, forward=pb.Forward(evaluating=evaluating))
        return self._uploads(self._answers(clients))

    @override
    def backward(self, step: int, dz: CodedGradients) -> None:
        assert not isinstance(dz, StackedGradients), "what travels is coded"
        number = self._expectations.cut_number("cut_gradient")
        asked = []
        for client, coded in dz:
            self._hub.ask(client, step=step, backward=pb.Backward(), tensors=[pack("dz", number, coded)])
            asked.append(client)
        self._answers(asked)

    @override
    def probe(
        self, step: int, dz: Iterable[tuple[int, SentTensor]], seeds: Sequence[int]
    ) -> Mapping[int, Tensor]:
        number, sent = self._expectations.cut_number("cut_gradient"), self._packed_seeds(seeds)
        asked = []
        for client, coded in dz:
            tensors = [pack("dz", number, coded), sent]
            self._hub.ask(client, step=step, probe=pb.Probe(), tensors=tensors)
            asked.append(client)
        slopes = {}
        for client, answers in self._answers(asked).items():
            self.tally.message("up", "scalars", client, answers[-1].head.tensors[0], step)
            slopes[client] = self._place(answers[-1])["slopes"]
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
        first, packed = self._packed_seeds(seeds), pack("slopes", pb.EXACT, slopes)
        for client in clients:
            tensors = [first, packed] if client in unaware else [packed]
            self._hub.ask(client, step=step, move=pb.Move(), tensors=tensors)
        self._answers(clients)

    def _packed_seeds(self, seeds: Sequence[int]) -> Packed:
        return pack("seeds", pb.EXACT, exactly(seeds_tensor(seeds), packs=True))

    @override
    def step_tail(self, step: int, h: CodedGradients) -> StepResult:
        assert not isinstance(h, StackedGradients), "what travels is coded"
        number = self._expectations.cut_number("trunk_output")
        asked = []
        for client, coded in h:
            self._hub.ask(client, step=step, step_tail=pb.StepTail(), tensors=[pack("h", number, coded)])
            asked.append(client)
        losses, gradients = [], {}
        for client, answers in self._answers(asked).items():
            head = answers[-1].head
            losses += _losses(client, head.done)
            self.tally.message("up", "cut_gradient", client, head.tensors[0], step)
            gradients[client] = self._place(answers[-1])["dh"]
        return losses, gradients

    @override
    def train_local(self, clients: Sequence[int], work: LocalWork) -> LocalTraining:
        for client in clients:
            asked = pb.TrainLocal(
                train_head=work.train_head,
                upload_interval=work.upload_interval or 0,
                skip_first_upload=client in work.skip_first_upload,
            )
            self._hub.ask(client, train_local=asked)
        answers = self._answers(clients)
        losses = [loss for client, each in answers.items() for loss in _losses(client, each[-1].head.done)]
        return LocalTraining(self._uploads(answers), losses)

    @override
    def observe(self, part: Part, clients: Sequence[int]) -> Sequence[Weights]:
        for client in clients:
            self._hub.ask(client, upload_weights=pb.UploadWeights(part=PARTS[part], observed=True))
        answers = [each[-1] for each in self._answers(clients).values()]
        self.tally.count_observation(sum(answer.size for answer in answers))
        return [self._place(answer) for answer in answers]

    @override
    def weights(self, part: Part, clients: Sequence[int], held: Mapping[int, Weights]) -> Sequence[Weights]:
        for client in clients:
            asked = pb.UploadWeights(part=PARTS[part])
            self._hub.ask(client, difference=client in held, upload_weights=asked)
        arrived = []
        for client, answers in self._answers(clients).items():
            for tensor in answers[-1].head.tensors:
                self.tally.message("up", KIND_OF[part], client, tensor)
            weights = self._place(answers[-1])
            arrived.append(add_difference(held[client], weights) if client in held else weights)
        return arrived

    def _uploads(self, answered: Mapping[int, Sequence[Answer]]) -> list[Upload]:
        positions, uploads = self._expectations.positions, []
        for client, answers in answered.items():
            for answer in answers[:-1]:
                step, tensors = answer.head.identity.step, self._place(answer)
                for sent in answer.head.tensors:
                    self.tally.message("up", _UPLOADED[sent.name], client, sent, step)
                y = tensors.get("y", tensors["z"].new_empty(len(tensors["z"]), 0))
                padded = positions.pad(tensors["z"], y, positions.padding)
                uploads.append(Upload(client, step, padded, y))
        return uploads

    def _place(self, answer: Answer) -> Weights:
        return {name: tensor.to(self._device) for name, tensor in answer.tensors.items()}


def _losses(client: int, done: pb.Done) -> list[BatchLoss]:
    return [
        BatchLoss([client], torch.tensor([loss], dtype=torch.float64), [terms])
        for loss, terms in zip(done.losses, done.samples, strict=True)
    ]
