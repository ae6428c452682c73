"""A device that has dialled in, as the server asks it for requests."""

from fedsplit.errors import RunFailed
from fedsplit.inference.device import Device, Footprint, Request
from fedsplit.inference.grpc.devices import Devices, Gone, check_measured
from fedsplit.inference.server_half import Answered, ServerHalf
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.tensors import TYPES, announced

_ATTEMPTS = 3
"""At one request: a stream may break, but not again and again."""


class GrpcDevice(Device):
    """A device that has dialled in.

    Args:
        samples: of a request.
    """

    def __init__(self, number: int, hub: Devices, server: ServerHalf, samples: int) -> None:
        self.number, self._hub, self._server, self._samples = number, hub, server, samples
        deployed = hub.wait_for(number)
        self.precision = deployed.precision
        self.footprint = Footprint(deployed.file_bytes, deployed.memory_before)

    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        """See `Device.request`: one that breaks is begun again."""
        reason = ""
        for _ in range(_ATTEMPTS):
            self._hub.wait_for(self.number)
            try:
                return self._request(number, batch, warm_up)
            except Gone as gone:
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
        measured = self._answer(answered)
        wire = measured.journey_seconds - answered.seconds
        return Request(
            device=self.number,
            precision=self.precision,
            number=number,
            warm_up=warm_up,
            samples=self._samples,
            correct=measured.correct,
            client_seconds=measured.client_seconds,
            server_seconds=answered.seconds,
            wire_seconds=max(0.0, wire),
            bytes_up=len(payload),
            bytes_down=answered.size,
            peak_memory=measured.peak_memory,
            logits_crc32=answered.checksum,
        )

    def _answer(self, answered: Answered) -> pb.Measured:
        """Send logits; what the device measured."""
        message = Identity().encode(answered.logits)
        tensors = [announced("logits", pb.EXACT, message)]
        head = pb.FromServer(tensors=tensors, logits=pb.Logits(seconds=answered.seconds))
        measured = self._hub.ask(self.number, "measured", head, bytes(message.payload)).head.measured
        check_measured(measured, self._samples)
        if measured.checksum != answered.checksum:
            raise Corrupt("other logits arrived than were sent")
        return measured
