"""Take part in a run of another machine."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.logging import RichHandler

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
        "client.model",
        "client.memory_mb",
        "device",
        "dataset.root",
        "dataset.download",
        "progress",
    )
    models_of_run = "refused"
    swept = False
    joins = True
    announces = "{task}"

    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """See `Task.run`: what is kept goes to `client.directory`."""
        from fedsplit.building.parts import run_of_member  # noqa: PLC0415  (heavy)

        with extra("task", "client"):
            from fedsplit.inference.grpc.device import Device  # noqa: PLC0415
            from fedsplit.transport.grpc.client.client import Client as Process  # noqa: PLC0415
            from fedsplit.transport.grpc.protocol.tls import Tls, require_tls_beyond_loopback  # noqa: PLC0415

        transport, folder = config["transport"], config["client"]["directory"]
        if "server" not in transport:
            raise UserError("transport", config["choices"]["transport"], "must be grpc for a client")
        server = transport["server"]
        if server is None:
            raise UserError("transport.server", None, "a client needs the server's address and port")
        tls = Tls.read(transport["tls"]) if transport["tls"] is not None else None
        require_tls_beyond_loopback(server, tls, "transport.server")
        if int(server.rpartition(":")[2]) == 0:
            raise UserError("transport.server", server, "must end in the port that the server listens at")
        if tls is not None:
            tls.channel_credentials()  # of a client
        number = tls.client if tls is not None else config["client"]["id"]
        if number is None:
            raise UserError("client.id", None, "needed where no certificate says it: a whole number from 0")
        if config["client"]["id"] not in (None, number):
            raise UserError("client.id", config["client"]["id"], f"the certificate is of client {number}")
        own = {"device": config["device"]}
        own |= {f"dataset.{key}": value for key, value in config["dataset"].items() if value is not None}
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
        memory = config["client"]["memory_mb"]
        if (model := config["client"]["model"]) is not None:
            Device(
                server=server,
                client=number,
                tls=tls,
                model=user_path(model, "client.model"),
                own=own,
                memory_mb=memory,
            ).attend()
            return
        Process(
            server=server,
            client=number,
            tls=tls,
            folder=user_path(folder, "client.directory") if folder is not None else None,
            own=own,
            memory_mb=memory,
            build=run_of_member,
        ).attend()
