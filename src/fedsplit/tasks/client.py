"""Take part in a run of another machine."""

import logging
from pathlib import Path

from rich.logging import RichHandler
from typing_extensions import override

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.machine.extras import extra
from fedsplit.tasks.task import Task


class Client(Task):
    """One client, for as long as the run lasts; with `client.model` a device of split inference."""

    beside = (
        "task",
        "transport",
        "client.id",
        "client.directory",
        "client.min_noise",
        "client.model",
        "client.memory_mb",
        "device",
        "dataset.root",
        "dataset.tokenizer_files",
        "dataset.download",
        "model.name",
        "progress",
    )
    models_of_run = "refused"
    swept = False
    joins = True
    announces = "{task}"

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Take part as one client; what is kept goes to `client.directory`."""
        from fedsplit.building.run import run_of_member  # noqa: PLC0415  (heavy)

        with extra("task", "client"):
            from fedsplit.inference.grpc.device import DeviceClient  # noqa: PLC0415
            from fedsplit.transport.grpc.client.client import TrainingClient  # noqa: PLC0415
            from fedsplit.transport.grpc.client.dialling import Membership  # noqa: PLC0415
            from fedsplit.transport.grpc.protocol.arguments import GrpcArguments  # noqa: PLC0415
            from fedsplit.transport.grpc.protocol.tls import Tls, require_tls_beyond_loopback  # noqa: PLC0415

        if "server" not in config.transport.arguments:
            raise UserError("transport", config.choice("transport"), "must be grpc for a client")
        transport, client = GrpcArguments.of(config.transport), config.client
        server = transport.server
        if server is None:
            raise UserError("transport.server", None, "must be the server's address and port, for a client")
        tls = Tls.read(transport.tls) if transport.tls is not None else None
        require_tls_beyond_loopback(server, tls, "transport.server")
        if int(server.rpartition(":")[2]) == 0:
            raise UserError("transport.server", server, "must end in the port that the server listens at")
        if tls is not None:
            tls.channel_credentials()  # refuses a server's certificate
        number = tls.client if tls is not None else client.id
        if number is None:
            raise UserError("client.id", None, "must be a whole number from 0 where no certificate says it")
        if client.id not in (None, number):
            raise UserError("client.id", client.id, f"the certificate is of client {number}")
        own = {key: value for key, value in config.of_this_machine().items() if value is not None}
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
        who = Membership(server=server, client=number, tls=tls, own=own, memory_mb=client.memory_mb)
        if client.model is not None:
            DeviceClient(model=user_path(client.model, "client.model"), **who).attend()
        else:
            kept = client.directory
            folder = None if kept is None else user_path(kept, "client.directory")
            TrainingClient(
                folder=folder, build=run_of_member, keeps_secret=True, min_noise=client.min_noise, **who
            ).attend()
