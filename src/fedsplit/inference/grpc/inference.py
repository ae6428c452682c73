"""Split inference over gRPC: the server half answers devices that dial in, from this machine or others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_bytes

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.inference.device import Device
from fedsplit.inference.grpc.device import attend
from fedsplit.inference.grpc.devices import Devices
from fedsplit.inference.grpc.dialled import GrpcDevice
from fedsplit.inference.grpc.spawned import SpawnedDevice
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Subject
from fedsplit.transport.grpc.protocol.arguments import GrpcArguments
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.server.listening import Listener, shown_on_terminal
from fedsplit.transport.grpc.server.spawning import warm_forker

_LOG = logging.getLogger("fedsplit.network")
_TRAINING = ("min_clients", "round_deadline_s", "server")


class GrpcInference:
    """The server's end.

    Args:
        precisions: that devices may have.

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
        self.spawns = transport.spawn
        self._listener = Listener(transport.listen, transport.tls, spawn=self.spawns, whom="devices")
        self._config, self._precisions, self._count, self._wait_s = config, precisions, devices, wait_s

    @contextmanager
    def devices(
        self, subject: Subject, server: ServerHalf, deployed: Mapping[str, Path], log: Path
    ) -> Iterator[list[Device]]:
        """While the server listens, and all devices have come once.

        Args:
            deployed: directories of client halves, one for each device that is started here.
            log: folder for what those say.
        """
        config = self._config
        splitting = replace(config.splitting, cut=subject.cut)
        plan = choices_and_settings(replace(config, splitting=splitting, client_precisions=()))
        tell_of_data(plan, subject.data.dataset, subject.data.normalise)
        spawned: list[SpawnedDevice] = []
        hub = Devices(
            run=token_bytes(16),
            devices=self._count,
            allowed=self._precisions,
            batch=(config.training.batch_size, *subject.smashed_shape),
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
            samples = config.training.batch_size
            try:
                yield [GrpcDevice(number, hub, server, samples) for number in range(self._count)]
            finally:
                hub.finish()
