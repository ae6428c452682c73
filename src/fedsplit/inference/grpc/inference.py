"""Split inference over gRPC: the server half answers devices that dial in, from this machine or others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_bytes

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.inference.device import Device
from fedsplit.inference.grpc.device import attend
from fedsplit.inference.grpc.devices import Devices, GrpcDevice
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Batches, Subject
from fedsplit.processes.forker import Fork
from fedsplit.transport.grpc.protocol.arguments import GrpcArguments
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.server.listening import Listener, shown_on_terminal
from fedsplit.transport.grpc.server.spawning import last_words, warm_forker

_GRACE_S = 5.0


class SpawnedDevice:
    """A device started here, which says what it does in `log`: a process, and below it its client half's."""

    def __init__(self, number: int, fork: Fork, log: Path) -> None:
        self._number, self._fork, self._log = number, fork, log

    def __exit__(self, *raised: object) -> None:
        with suppress(TimeoutError):  # the process that forked it ends it
            self._fork.end.result(_GRACE_S if raised[0] is None else 0.1)

    @property
    def words(self) -> str:
        """Last words of the device as the end of a sentence; empty where it said nothing."""
        words = last_words(self._log)
        return f"; it says: {words}" if words else ""

    @property
    def failure(self) -> str | None:
        """Reason why it ended; None while it runs."""
        if not self._fork.end.done():
            return None
        return f"device {self._number}: {last_words(self._log) or 'it was killed: out of memory?'}"


_LOG = logging.getLogger("fedsplit.network")
_TRAINING = ("min_clients", "round_deadline_s", "server")


class GrpcInference:
    """The server's end, for devices of these precisions; `UserError` where this server cannot be."""

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
            raise UserError("task.devices", devices, f"must be at most num_clients, {most}")
        self.spawns = transport.spawn
        self._listener = Listener(transport.listen, transport.tls, spawn=self.spawns, whom="devices")
        self._config, self._precisions, self._count, self._wait_s = config, precisions, devices, wait_s

    @contextmanager
    def devices(
        self, subject: Subject, server: ServerHalf, deployed: Mapping[str, Path], log: Path
    ) -> Iterator[list[Device]]:
        """Listen for devices until all have come once, and while they are used.

        Args:
            deployed: directories of client halves, one for each device that is started here.
            log: folder for what those say.
        """
        config = self._config
        splitting = replace(config.splitting, cut=subject.cut)
        plan = choices_and_settings(replace(config, splitting=splitting, client_precisions=()))
        tell_of_data(plan, subject.data.dataset)
        spawned: list[SpawnedDevice] = []
        batches = Batches(subject.data, config.training.batch_size)
        hub = Devices(
            run=token_bytes(16),
            devices=self._count,
            allowed=self._precisions,
            batch=(config.training.batch_size, *subject.smashed_shape),
            codes=batches.codes(),
            wait_s=self._wait_s,
            failure=lambda: next((each.failure for each in spawned if each.failure), None),
            words=lambda device: spawned[device].words if self.spawns else "",
        )
        with ExitStack() as stack:
            address = stack.enter_context(self._listener.serving(hub, plan, clients=self._count))
            stack.enter_context(shown_on_terminal(config.recording.progress and not self.spawns))
            if self.spawns:
                forker = stack.enter_context(closing(warm_forker("starts devices")))
                own = config.of_this_machine() | {"device": "cpu"}
                for number, model in enumerate(deployed.values()):
                    life = partial(attend, address, number, model.absolute(), own)
                    said = log / f"device-{number}.log"
                    spawned.append(each := SpawnedDevice(number, forker.start(life, said), said))
                    stack.push(each.__exit__)
            else:
                _LOG.info("listening at %s, for devices 0 to %s", address, self._count - 1)
            try:
                yield [GrpcDevice(number, hub, server, batches) for number in range(self._count)]
            finally:
                hub.finish()
