"""A device's end of split inference: runs a deployed client model when the server asks for a request."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.run_config import RunConfig
from fedsplit.inference.client_half import ClientHalf, Ran
from fedsplit.inference.deploying import precision_of
from fedsplit.inference.server_half import checksum
from fedsplit.inference.subject import Batches, device_part
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.client.dialling import Dialler, Membership
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import (
    ExpectedTensor,
    Parcel,
    announcement,
    check,
    decode_tensors,
)
from fedsplit.transport.transport import Member


@dataclass(frozen=True)
class _PendingRequest:
    """A request that was sent and waits for its logits."""

    identity: pb.Identity
    labels: Tensor
    ran: Ran
    start: float
    expected_tensors: Sequence[ExpectedTensor]


class DeviceClient(Dialler):
    """One device, for as long as the server asks. Its client half runs in a fresh process of its own.

    Args:
        model: directory of the deployed client model.

    Raises:
        UserError: there is no deployed client model.
    """

    def __init__(self, *, model: Path, **who: Unpack[Membership]) -> None:
        super().__init__(**who)
        self._model = model
        self._precision = precision_of(model, "client.model")
        self._half: ClientHalf | None = None
        self._batches: Batches | None = None
        self._plan = pb.Plan()
        self._pending: _PendingRequest | None = None

    @override
    def attend(self) -> None:
        try:
            super().attend()
        finally:
            self._close()

    def _close(self) -> None:
        if self._half is not None:
            self._half.__exit__(None, None, None)
        self._half = self._batches = None

    @override
    def call(self, stub: federation_pb2_grpc.FederationStub) -> Any:
        return stub.Infer

    @override
    def joins(self, run: bytes, welcome: pb.Welcome) -> Mapping[str, pb.Deployed]:
        self._pending = None
        if self._half is None or welcome.plan != self._plan:
            self._close()
            self.build_part("the client model", welcome.plan, self._build)
            self._plan = welcome.plan
        return {"deployed": self._deploy()}

    def _build(self, config: RunConfig, member: Member) -> None:
        torch.set_num_threads(config.computation.threads)
        data, architecture = device_part(config, member)
        self._batches = Batches(data, config.training.batch_size)
        self._half = ClientHalf(self._model, architecture, config.computation.threads).__enter__()

    def _deploy(self) -> pb.Deployed:
        assert self._half is not None
        return pb.Deployed(
            precision=self._precision,
            file_bytes=self._half.file_bytes,
            memory_before=self._half.memory_before,
        )

    @override
    def admit(self, frame: pb.FromServer) -> bool:
        asked = self._pending
        if asked is None or frame.WhichOneof("content") != "logits" or frame.identity != asked.identity:
            raise Corrupt("the server sent tensors that this device did not ask for")
        check(frame.tensors, asked.expected_tensors)
        return True

    @override
    def answer(self, parcel: Parcel[pb.FromServer]) -> list[Parcel[pb.FromClient]]:
        if parcel.head.WhichOneof("content") == "request":
            return [self._run_client_half(parcel.head)]
        measured = self._measure(self._pending, parcel)
        self._pending, self.has_served = None, True
        return [measured]

    def _run_client_half(self, head: pb.FromServer) -> Parcel[pb.FromClient]:
        """Run the client half on a batch: its smashed data, whose logits are then waited for."""
        assert self._half is not None
        assert self._batches is not None
        x, labels = self._batches[head.request.batch]
        ran = self._half.run(x)
        sent = time.perf_counter()
        message = self._batches.codes().encode(ran.smashed, self._batches.objective.lengths(labels))
        tensors = [announcement("z", pb.DEVICE, message)]
        shape = self._batches.answer_shape(labels)
        expected = [ExpectedTensor("logits", pb.EXACT, Identity(), shape, torch.float32)]
        self._pending = _PendingRequest(head.identity, labels, ran, sent, expected)
        smashed = pb.FromClient(identity=head.identity, tensors=tensors, smashed=pb.Smashed())
        return Parcel(smashed, [message.payload])

    def _measure(self, asked: _PendingRequest | None, parcel: Parcel[pb.FromServer]) -> Parcel[pb.FromClient]:
        if asked is None or parcel.head.WhichOneof("content") != "logits" or not parcel.payloads:
            raise Corrupt("the server sent logits that this device did not ask for")
        assert self._batches is not None
        logits = decode_tensors(parcel, asked.expected_tensors)["logits"]
        journey = time.perf_counter() - asked.start
        measured = pb.Measured(
            client_seconds=asked.ran.seconds,
            journey_seconds=journey,
            correct=int(self._batches.measure(logits, asked.labels).hits or 0),
            peak_memory=asked.ran.peak_memory,
            checksum=checksum(logits),
        )
        return Parcel(pb.FromClient(identity=asked.identity, measured=measured))


def attend(server: str, client: int, model: Path, own: Mapping[str, object]) -> None:
    """Be a device that the server has started on its own machine, until it is let go; see `DeviceClient`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    DeviceClient(server=server, client=client, tls=None, model=model, own=own).attend()
