"""A device's end of split inference: runs a deployed client model when the server asks for a request."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.inference.client_half import ClientHalf, Ran
from fedsplit.inference.codes import DeviceCodes
from fedsplit.inference.deploying import precision_of
from fedsplit.inference.server_half import checksum
from fedsplit.inference.subject import Batches, device_part
from fedsplit.machine.allowance import allowing_a_client
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.client.dialling import Dialler, Outbox
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.plan import check_data, configuration_of_client, normalisation
from fedsplit.transport.grpc.protocol.tls import Tls
from fedsplit.transport.grpc.protocol.wire import (
    Assembler,
    Expected,
    Parcel,
    announced,
    check,
    decoded,
    one_line,
)
from fedsplit.transport.transport import Member


@dataclass(frozen=True)
class _Asked:
    """A request that was sent and waits for its logits."""

    identity: pb.Identity
    labels: Tensor
    ran: Ran
    sent: float
    expected: Sequence[Expected]


class Device(Dialler):
    """One device, for as long as the server asks. Its client half runs in a fresh process of its own.

    Args:
        server: address and port.
        client: its number.
        tls: who it is, and whom it trusts; None without.
        model: directory of the deployed client model.
        own: keys of the configuration that are this machine's own, such as `dataset.root`.
        memory_mb: MB of memory that a run may ask for; None: half of this machine's.

    Raises:
        UserError: there is no deployed client model.
    """

    def __init__(
        self,
        *,
        server: str,
        client: int,
        tls: Tls | None,
        model: Path,
        own: Mapping[str, object],
        memory_mb: float | None = None,
    ) -> None:
        super().__init__(server, client, tls)
        self._memory_mb = memory_mb
        self._model, self._own = model, own
        self._precision = precision_of(model, "client.model")
        self._half: ClientHalf | None = None
        self._batches: Batches | None = None
        self._classes = 0
        self._plan = pb.Plan()

    def attend(self) -> None:
        """See `Dialler.attend`."""
        try:
            super().attend()
        finally:
            self._close()

    def _close(self) -> None:
        if self._half is not None:
            self._half.__exit__(None, None, None)
        self._half = self._batches = None

    def call(self, stub: federation_pb2_grpc.FederationStub) -> Any:
        """See `Dialler.call`."""
        return stub.Infer

    def serve(self, stream: Iterator[pb.FromServer], outbox: Outbox) -> bool:
        """See `Dialler.serve`."""
        outbox.put(self.hello())
        asked: _Asked | None = None
        welcomed = False
        assembler: Assembler[pb.FromServer] = Assembler(lambda frame: self._admit(asked, frame))
        for frame in stream:
            content = frame.WhichOneof("content")
            if content == "refusal":
                self.refused(frame.refusal)
            elif content == "finish":
                return True
            elif content == "welcome" and not welcomed:
                self._build(frame)
                outbox.put(Parcel(pb.FromClient(identity=frame.identity, deployed=self._deployed())))
                welcomed = True
            elif not welcomed:
                raise Corrupt(f"{content} came before a welcome")
            elif (parcel := assembler.add(frame)) is not None:
                if content == "request":
                    asked = self._request(parcel.head, outbox)
                else:  # logits, or the last part of them: nothing else is admitted
                    outbox.put(self._measured(asked, parcel))
                    asked, self.served = None, True
        return False

    def _build(self, frame: pb.FromServer) -> None:
        """Make what this device needs of a plan, unless it has that already."""
        if frame.identity.client != self.client or len(frame.identity.run) != 16:
            raise Corrupt("a welcome that is not for this device")
        plan = frame.welcome.plan
        if self._half is not None and plan == self._plan:
            return
        self._close()
        config = configuration_of_client(plan, self.client, self._own)
        member = Member(self.client, normalisation(plan), partial(check_data, plan))
        torch.set_num_threads(config.computation.threads)
        try:
            with allowing_a_client(self._memory_mb):
                data, architecture = device_part(config, member)
            half = ClientHalf(self._model, architecture, config.computation.threads).__enter__()
        except (UserError, RunFailed, Corrupt):
            raise
        except Exception as error:  # whatever models and data raise
            reason = one_line(first_line(error))
            raise RunFailed(f"the client model cannot be built here: {reason}") from error
        self._half, self._batches, self._plan = half, Batches(data, config.training.batch_size), plan
        self._classes = data.dataset.num_classes

    def _deployed(self) -> pb.Deployed:
        assert self._half is not None
        return pb.Deployed(
            precision=self._precision,
            file_bytes=self._half.file_bytes,
            memory_before=self._half.memory_before,
        )

    def _admit(self, asked: _Asked | None, frame: pb.FromServer) -> bool:
        if asked is None or frame.WhichOneof("content") != "logits" or frame.identity != asked.identity:
            raise Corrupt("tensors that were not asked for")
        check(frame.tensors, asked.expected)
        return True

    def _request(self, head: pb.FromServer, outbox: Outbox) -> _Asked:
        """Run the client half, and send what it gives."""
        assert self._half is not None
        assert self._batches is not None
        x, labels = self._batches[head.request.batch]
        ran = self._half.run(x)
        sent = time.perf_counter()
        message = DeviceCodes().encode(ran.smashed)
        tensors = [announced("z", pb.DEVICE, message)]
        smashed = pb.FromClient(identity=head.identity, tensors=tensors, smashed=pb.Smashed())
        outbox.put(Parcel(smashed, [message.payload]))
        shape = (len(x), self._classes)
        expected = [Expected("logits", pb.EXACT, Identity(), shape, torch.float32)]
        return _Asked(head.identity, labels, ran, sent, expected)

    def _measured(self, asked: _Asked | None, parcel: Parcel[pb.FromServer]) -> Parcel[pb.FromClient]:
        if asked is None or parcel.head.WhichOneof("content") != "logits" or not parcel.payloads:
            raise Corrupt("logits that were not asked for")
        logits = decoded(parcel, asked.expected)["logits"]
        journey = time.perf_counter() - asked.sent
        told = pb.Measured(
            client_seconds=asked.ran.seconds,
            journey_seconds=journey,
            correct=int((logits.argmax(1) == asked.labels).sum()),
            peak_memory=asked.ran.peak_memory,
            checksum=checksum(logits),
        )
        return Parcel(pb.FromClient(identity=asked.identity, measured=told))


def attend(server: str, client: int, model: Path, own: Mapping[str, object]) -> None:
    """Be a device that the server has started on its own machine, until it is let go; see `Device`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    Device(server=server, client=client, tls=None, model=model, own=own).attend()
