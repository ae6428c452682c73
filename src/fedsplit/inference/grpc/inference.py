"""Split inference over gRPC: the server half answers devices that dial in, from this machine or others."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Any

from fedsplit.errors import UserError
from fedsplit.inference.device import Device
from fedsplit.inference.grpc.devices import Devices
from fedsplit.inference.grpc.dialled import GrpcDevice
from fedsplit.inference.grpc.spawned import SpawnedDevice
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Subject
from fedsplit.transport.grpc.protocol.plan import choices_and_settings, tell_of_data
from fedsplit.transport.grpc.server.listening import Listener, shown

_LOG = logging.getLogger("fedsplit.network")
_TRAINING = ("min_clients", "round_deadline_s", "server")


class GrpcInference:
    """The server's end.

    Args:
        config: of what is measured, with `transport`.
        precisions: that devices may have.
        devices: how many there are.
        wait_s: seconds after which a device that is not here is not waited for any more.

    Raises:
        UserError: this server cannot be.
    """

    def __init__(
        self, config: Mapping[str, Any], *, precisions: Sequence[str], devices: int, wait_s: float
    ) -> None:
        transport = config["transport"]
        for key in _TRAINING:
            if transport[key] is not None:
                raise UserError(f"transport.{key}", transport[key], "must be null beside task=infer")
        if devices > config["num_clients"]:
            told = f"at most num_clients, {config['num_clients']}"
            raise UserError("task.devices", devices, told)
        self.spawns: bool = transport["spawn"]
        self._listener = Listener(transport["listen"], transport["tls"])
        if self.spawns and transport["tls"] is not None:
            told = "is for devices that dial in: transport.spawn=false"
            raise UserError("transport.tls", transport["tls"], told)
        self._config, self._precisions, self._count, self._wait_s = config, precisions, devices, wait_s

    @contextmanager
    def devices(
        self, subject: Subject, server: ServerHalf, deployed: Mapping[str, Path], log: Path
    ) -> Iterator[list[Device]]:
        """While the server listens, and all devices have come once.

        Args:
            subject: what is measured.
            server: that answers.
            deployed: directories of client halves, one for each device that is started here.
            log: folder for what those say.
        """
        config = self._config
        told = {**config, "precision": "fp32", "model": {**config["model"], "cut": subject.cut}}
        plan = choices_and_settings(told)
        tell_of_data(plan, subject.data.dataset, subject.data.normalise)
        spawned: list[SpawnedDevice] = []
        hub = Devices(
            run=token_bytes(16),
            devices=self._count,
            allowed=self._precisions,
            batch=(config["batch_size"], *subject.smashed_shape),
            wait_s=self._wait_s,
            failure=lambda: next((each.failure for each in spawned if each.failure), None),
            words=lambda device: spawned[device].words if self.spawns else "",
        )
        with ExitStack() as stack:
            address = stack.enter_context(self._listener.serving(hub, plan, clients=self._count))
            if self.spawns:
                for number, model in enumerate(deployed.values()):
                    each = SpawnedDevice(number, address, model, config, log / f"device-{number}.log")
                    spawned.append(stack.enter_context(each))
            elif config["progress"]:
                stack.enter_context(shown())
            if not self.spawns:
                _LOG.info("listening at %s, for devices 0 to %s", address, self._count - 1)
            try:
                yield [GrpcDevice(number, hub, server, config["batch_size"]) for number in range(self._count)]
            finally:
                hub.finish()
