"""Split inference over gRPC: the server half answers devices that dial in, from this machine or others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_bytes

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import RunFailed, UserError
from fedsplit.inference import device as inference
from fedsplit.inference.device import Footprint
from fedsplit.inference.grpc.device import attend
from fedsplit.inference.grpc.devices import Devices, Gone, check_measured
from fedsplit.inference.request import Request
from fedsplit.inference.server_half import Answered, ServerHalf
from fedsplit.inference.subject import Subject
from fedsplit.processes.forker import Fork
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.arguments import GrpcArguments
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.protocol.wire import TYPES, announced
from fedsplit.transport.grpc.server.listening import shown_on_terminal, tls_to_listen_with
from fedsplit.transport.grpc.server.server import Federation, start
from fedsplit.transport.grpc.server.spawning import last_words, warm_forker

_LOG = logging.getLogger("fedsplit.network")
_GRACE_S = 5.0
_ATTEMPTS = 3
"""At one request: a stream may break, but not again and again."""
_TRAINING = ("min_clients", "round_deadline_s", "server")


class GrpcInference:
    """The server's end.

    Args:
        config: of what is measured.
        transport: what its transport is given.
        precisions: that devices may have.
        devices: how many there are.
        wait_s: seconds after which a device that is not here is not waited for any more.

    Raises:
        UserError: this server cannot be.
    """

    def __init__(
        self,
        config: RunConfig,
        transport: GrpcArguments,
        *,
        precisions: Sequence[str],
        devices: int,
        wait_s: float,
    ) -> None:
        for key in _TRAINING:
            if (value := getattr(transport, key)) is not None:
                raise UserError(f"transport.{key}", value, "must be null beside task=infer")
        if devices > (most := config.population.num_clients):
            raise UserError("task.devices", devices, f"at most num_clients, {most}")
        self.spawns, self._listen = transport.spawn, transport.listen
        self._tls = tls_to_listen_with(self._listen, transport.tls, spawn=self.spawns, whom="devices")
        self._config, self._precisions, self._count, self._wait_s = config, precisions, devices, wait_s

    @contextmanager
    def devices(
        self, subject: Subject, server: ServerHalf, deployed: Mapping[str, Path], log: Path
    ) -> Iterator[list[inference.Device]]:
        """While the server listens, and all devices have come once.

        Args:
            subject: what is measured.
            server: that answers.
            deployed: directories of client halves, one for each device that is started here.
            log: folder for what those say.
        """
        config = self._config
        splitting = replace(config.splitting, cut=subject.cut)
        plan = choices_and_settings(replace(config, splitting=splitting, client_precisions=()))
        tell_of_data(plan, subject.data.dataset, subject.data.normalise)
        spawned: list[_Spawned] = []
        hub = Devices(
            run=token_bytes(16),
            devices=self._count,
            allowed=self._precisions,
            batch=(config.training.batch_size, *subject.smashed_shape),
            wait_s=self._wait_s,
            failure=lambda: next((each.failure for each in spawned if each.failure), None),
            words=lambda device: spawned[device].words if self.spawns else "",
        )
        federation = Federation(hub, plan, clients=self._count, secured=self._tls is not None)
        running, port = start(federation, listen=self._listen, tls=self._tls)
        address = f"{self._listen.rpartition(':')[0]}:{port}"
        try:
            with ExitStack() as stack, shown_on_terminal(config.recording.progress and not self.spawns):
                if self.spawns:
                    forker = stack.enter_context(closing(warm_forker("starts devices")))
                    own = config.of_this_machine() | {"device": "cpu"}
                    for number, model in enumerate(deployed.values()):
                        life = partial(attend, address, number, model.absolute(), own)
                        said = log / f"device-{number}.log"
                        spawned.append(each := _Spawned(number, forker.start(life, said), said))
                        stack.push(each.__exit__)
                else:
                    _LOG.info("listening at %s, for devices 0 to %s", address, self._count - 1)
                try:
                    yield [
                        GrpcDevice(number, hub, server, config.training.batch_size)
                        for number in range(self._count)
                    ]
                finally:
                    hub.finish()
        finally:
            running.stop(_GRACE_S).wait()
            federation.sum_up()


class GrpcDevice(inference.Device):
    """A device that has dialled in.

    Args:
        number: which.
        hub: where it is.
        server: that answers it.
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


class _Spawned:
    """A device that is started on this machine: a process, and below it that of its client half."""

    def __init__(self, number: int, fork: Fork, log: Path) -> None:
        self._number, self._fork, self._log = number, fork, log

    def __exit__(self, *raised: object) -> None:
        with suppress(TimeoutError):  # what forked it ends it
            self._fork.ended.result(_GRACE_S if raised[0] is None else 0.1)

    @property
    def words(self) -> str:
        """What it said last, as the end of a sentence; empty where it said nothing."""
        words = last_words(self._log)
        return f"; it says: {words}" if words else ""

    @property
    def failure(self) -> str | None:
        """Why it ended; None while it runs."""
        if not self._fork.ended.done():
            return None
        return f"device {self._number}: {last_words(self._log) or 'it was killed: out of memory?'}"
