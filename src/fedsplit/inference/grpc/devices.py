"""Where split inference and the streams of devices meet: who is here, what it was asked, what it answered."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import isfinite

from typing_extensions import override

from fedsplit.errors import RunFailed
from fedsplit.inference.codes import CODES, FLOATS, DeviceCodes
from fedsplit.inference.device import Device, Footprint, Request
from fedsplit.inference.server_half import RequestAnswer, ServerHalf
from fedsplit.inference.subject import Batches
from fedsplit.machine.terminal import note
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import (
    TYPES,
    ExpectedTensor,
    Parcel,
    announcement,
    check,
    one_line,
)
from fedsplit.transport.grpc.server.meeting import Link, Meeting, Reminder, Session, StreamRefused

_LOG = logging.getLogger("fedsplit.network")
_MOST_BYTES = 1 << 50


class DeviceGone(Exception):
    """A device cannot go on with a request; it is to be asked again."""


@dataclass
class DeviceSession(Session):
    """One device, as the server sees it.

    Args:
        deployment: client half that the device runs; None until it came.
        asked: the message that it is to answer; None where it is to answer none.
        awaits: kind of the answer that is waited for.
        trouble: why a request of it came to its end.
    """

    deployment: pb.Deployed | None = None
    pending: pb.Identity | None = None
    awaits: str = ""
    answer: Parcel[pb.FromClient] | None = None
    trouble: str = "its stream ended"


class Devices(Meeting[DeviceSession]):
    """All devices of a study.

    Args:
        allowed: precisions that devices may have.
        batch: shape of the smashed data of a request; of texts, the longest that it can be.
        codes: codes of the smashed data.
        failure: why a device will never come, as far as that is known.
        words: last words of a device, `; it says: ...`, as far as they are known here.
    """

    joins_with = "deployed"
    for_others = "this server does split inference: a device brings its model, client.model=<directory>"
    role = "device"
    expectation = "this study has devices"

    def __init__(
        self,
        *,
        run: bytes,
        devices: int,
        allowed: Collection[str],
        batch: tuple[int, ...],
        codes: DeviceCodes,
        wait_s: float,
        failure: Callable[[], str | None],
        words: Callable[[int], str] = lambda device: "",
    ) -> None:
        super().__init__(run, [DeviceSession(device) for device in range(devices)])
        self._allowed, self._batch, self._codes = allowed, batch, codes
        self._wait_s, self._failure, self._words = wait_s, failure, words
        self._number = 0

    # Called by streams, from their threads

    @override
    def attach(self, link: Link, hello: pb.Hello, joins: pb.Deployed) -> None:
        if joins.precision not in self._allowed:
            asked, has = ", ".join(self._allowed), one_line(joins.precision)
            raise StreamRefused(f"it runs precision {has!r}, and this server measures {asked}", for_good=True)
        if not 0 <= joins.file_bytes <= _MOST_BYTES or not 0 <= joins.memory_before <= _MOST_BYTES:
            raise Corrupt("the device reports more bytes than a device can have")
        with self.condition:
            self.greet(hello)
            session = self._sessions[hello.client]
            if session.deployment is not None and session.deployment.precision != joins.precision:
                message = f"device {hello.client} came with precision {session.deployment.precision} before"
                raise StreamRefused(message, for_good=True)
            self._replace_link(session, link, hello)
            session.deployment, session.pending = joins, None
            if self._finished:
                self._let_go(session, tell=True)
            self.condition.notify_all()
        _LOG.info("device %s is here, with precision %s", hello.client, joins.precision)

    @override
    def detach(self, link: Link, client: int, pending: int) -> None:
        with self.condition:
            session = self._sessions[client]
            if session.link is link:
                session.link = session.pending = None
                self.condition.notify_all()
                if not self._finished:
                    _LOG.warning("device %s is gone", client)

    @override
    def admit(self, link: Link, client: int, frame: pb.FromClient) -> bool:
        with self.condition:
            self._check_answer(link, client, frame)
        try:
            self._check_tensors(frame)
        except Corrupt as error:
            self._sessions[client].trouble = str(error)
            raise
        return True

    def _check_tensors(self, frame: pb.FromClient) -> None:
        if frame.WhichOneof("content") != "smashed" or len(frame.tensors) != 1:
            raise Corrupt("the message announces tensors that no device sends")
        dtype = TYPES.get(frame.tensors[0].data_type)
        if dtype not in (*CODES, *FLOATS):
            raise Corrupt(f"smashed data have type {dtype}, which this run never sends")
        shape, context = self._batch, self._codes.context
        if context is not None and len(announced := frame.tensors[0].shape) > 1:
            if not 1 <= announced[1] <= context:
                raise Corrupt(f"smashed data have {announced[1]} positions, which no batch has")
            shape = (shape[0], announced[1], *shape[2:])
        check(frame.tensors, [ExpectedTensor("z", pb.DEVICE, self._codes, shape, dtype)])

    @override
    def receive(self, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        content = parcel.head.WhichOneof("content")
        with self.condition:
            session = self._check_answer(link, client, parcel.head)
            if content == "smashed" and len(parcel.payloads) != 1:
                raise Corrupt("the message came without its smashed data")
            session.answer = parcel
            self.condition.notify_all()

    def _check_answer(self, link: Link, client: int, frame: pb.FromClient) -> DeviceSession:
        session, content = self._sessions[client], frame.WhichOneof("content")
        if session.link is not link or session.pending is None or session.answer is not None:
            raise Corrupt(f"{content} came, and the server had asked for nothing")
        if content != session.awaits or frame.identity != session.pending:
            raise Corrupt(f"{content} came in place of {session.awaits}")
        return session

    # Called by the study

    def wait_for(self, device: int) -> pb.Deployed:
        """Wait until a device is here, and return what it runs; `RunFailed` if it does not come in time."""
        begun, reminder = time.monotonic(), Reminder()
        session = self._sessions[device]
        with self.condition:
            while session.link is None:
                if (failure := self._failure()) is not None:
                    raise RunFailed(failure)
                if time.monotonic() - begun >= self._wait_s:
                    message = f"device {device} is not here after {self._wait_s:g} s (task.wait_s)"
                    raise RunFailed(message + self._words(device))
                if reminder.is_due():
                    _LOG.info("waiting for device %s", device)
                    if words := self._words(device):
                        note(f"waiting for device {device}{words}")
                self.condition.wait(min(1.0, self._wait_s))
            assert session.deployment is not None
            return session.deployment

    def ask(
        self, device: int, awaits: str, head: pb.FromServer, payload: bytes = b""
    ) -> Parcel[pb.FromClient]:
        """Send a device a message; the answer to it.

        Args:
            awaits: kind of the answer that is waited for.
            head: head of the message; its identity is filled in.
            payload: payload of the tensor that it announces, if it does.

        Raises:
            Gone: its stream ended before it had answered.
        """
        session = self._sessions[device]
        with self.condition:
            link = session.link
            if link is None:
                raise DeviceGone(session.trouble)
            if awaits == "smashed":
                self._number += 1
            identity = pb.Identity(run=self.run, client=device, number=self._number)
            head.identity.CopyFrom(identity)
            session.pending, session.awaits, session.answer = identity, awaits, None
            link.send(Parcel(head, [payload] if head.tensors else []))
            self.condition.wait_for(lambda: session.answer is not None or session.link is not link)
            answer, session.answer, session.pending = session.answer, None, None
            if answer is None:
                raise DeviceGone(session.trouble)
        return answer

    def cut(self, device: int, reason: str) -> None:
        """End the stream of a device that sent what it should not."""
        _LOG.warning("closed the stream of device %s: %s", device, reason)
        with self.condition:
            session = self._sessions[device]
            session.trouble = reason
            if session.link is not None:
                session.link.cut()
                session.link = None

    def finish(self) -> None:
        """Let all devices end their work."""
        with self.condition:
            self._finished = True
            for session in self._sessions:
                self._let_go(session, tell=True)


def check_measured(measured: pb.Measured, terms: int) -> None:
    """Raise `Corrupt` where no device measures this of a request in which so many answers may be right."""
    seconds = (measured.client_seconds, measured.journey_seconds)
    if not all(isfinite(each) and each >= 0 for each in seconds):
        raise Corrupt("the device reports seconds that are negative or not finite")
    if measured.correct > terms or measured.peak_memory > _MOST_BYTES:
        raise Corrupt("the device reports counts that are out of range")


_ATTEMPTS = 3
"""Most attempts at one request: a stream may break, but not again and again."""


class GrpcDevice(Device):
    """A device that has dialled in; `batches` are those that it asks with, of which it has its own."""

    def __init__(self, number: int, hub: Devices, server: ServerHalf, batches: Batches) -> None:
        self.number, self._hub, self._server, self._batches = number, hub, server, batches
        deployed = hub.wait_for(number)
        self.precision = deployed.precision
        self.footprint = Footprint(deployed.file_bytes, deployed.memory_before)

    @override
    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        """Let the device make a request; begin again with one that breaks."""
        reason = ""
        for _ in range(_ATTEMPTS):
            self._hub.wait_for(self.number)
            try:
                return self._request(number, batch, warm_up)
            except DeviceGone as gone:
                reason = str(gone)
            except Corrupt as error:
                reason = str(error)
                self._hub.cut(self.number, reason)
        raise RunFailed(f"device {self.number}: no request {number} in {_ATTEMPTS} attempts: {reason}")

    def _request(self, number: int, batch: int, warm_up: bool) -> Request:
        asked = pb.FromServer(request=pb.Request(batch=batch))
        parcel = self._hub.ask(self.number, "smashed", asked)
        (tensor,), (payload,) = parcel.head.tensors, parcel.payloads
        message = Message(payload, tuple(tensor.shape), TYPES[tensor.data_type], tensor.checksum)
        answered = self._server.answer(message)
        _, labels = self._batches[batch]
        terms = self._batches.objective.terms(labels)
        measured = self._answer(answered, terms)
        wire = measured.journey_seconds - answered.seconds
        return Request(
            device=self.number,
            precision=self.precision,
            number=number,
            warm_up=warm_up,
            samples=len(labels),
            terms=terms,
            correct=measured.correct,
            client_seconds=measured.client_seconds,
            server_seconds=answered.seconds,
            wire_seconds=max(0.0, wire),
            bytes_up=len(payload),
            bytes_down=answered.size,
            peak_memory=measured.peak_memory,
            logits_crc32=answered.checksum,
        )

    def _answer(self, answered: RequestAnswer, terms: int) -> pb.Measured:
        """Send logits, of which so many may be right; what the device measured."""
        message = Identity().encode(answered.logits)
        tensors = [announcement("logits", pb.EXACT, message)]
        head = pb.FromServer(tensors=tensors, logits=pb.Logits(seconds=answered.seconds))
        measured = self._hub.ask(self.number, "measured", head, bytes(message.payload)).head.measured
        check_measured(measured, terms)
        if measured.checksum != answered.checksum:
            raise Corrupt("the logits that arrived are not those that the server sent")
        return measured
