"""A server that listens: on an address that is found free before anything is written, as whom TLS says."""

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from rich.console import Console
from rich.logging import RichHandler

from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import OPTIONS
from fedsplit.transport.grpc.protocol.tls import Tls, require_tls_beyond_loopback
from fedsplit.transport.grpc.server.meeting import Meeting
from fedsplit.transport.grpc.server.server import HELLO_S, MOST_OF_CONNECTION, SPARE, Federation

_LOG = logging.getLogger("fedsplit.network")
_SERVICE = "fedsplit.Federation"
_GRACE_S = 5.0


class Listener:
    """Address that a server listens at.

    Args:
        listen: address and port; port 0 takes a free one.
        tls: folder with a certificate, its key, and the authority that clients' certificates are of; None
            on loopback only.
        spawn: True if the server starts the processes that it serves.
        whom: name of those that it serves, in errors: `clients` or `devices`.

    Raises:
        UserError: no server can listen there, or not as this one.
    """

    def __init__(self, listen: str, tls: str | None, *, spawn: bool, whom: str) -> None:
        self.listen = listen
        self.tls = Tls.read(tls, "transport.tls") if tls is not None else None
        require_tls_beyond_loopback(listen, self.tls)
        if self.tls is not None:
            self.tls.server_credentials()  # refuses a client's
            if spawn:
                raise UserError("transport.tls", tls, f"is for {whom} that dial in: transport.spawn=false")
        _refuse_taken(listen)

    @contextmanager
    def serving(self, hub: Meeting[Any], plan: pb.Plan, *, clients: int) -> Iterator[str]:
        """Let streams into a hub, and give the address that clients dial; `UserError` where it is taken."""
        federation = Federation(hub, plan, clients=clients, secured=self.tls is not None)
        server, port = start(federation, listen=self.listen, tls=self.tls)
        try:
            yield f"{self.listen.rpartition(':')[0]}:{port}"
        finally:
            server.stop(_GRACE_S).wait()
            federation.sum_up()


def _refuse_taken(listen: str) -> None:
    """Raise `UserError`, before anything is written, where no server can listen."""
    host, _, port = listen.rpartition(":")
    with in_one_line("transport.listen", listen, "cannot be listened at"):
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


class _Health(health.HealthServicer):  # type: ignore[misc]  # it has no types
    """The standard health service, answered by threads of its own: streams that wait do not delay it."""

    def Check(  # noqa: N802  (the name of the protocol)
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        return super().Check(request, context)

    Check.experimental_thread_pool = ThreadPoolExecutor(2, thread_name_prefix="health")  # type: ignore[attr-defined]


def start(federation: Federation, *, listen: str, tls: Tls | None) -> tuple[grpc.Server, int]:
    """A running server, and its port.

    Args:
        federation: service, beside the standard health service.
        tls: identity of the server, and whom it trusts; None on loopback only.

    Raises:
        UserError: the address cannot be listened at.
    """
    options = (*OPTIONS, ("grpc.so_reuseport", 0), ("grpc.server_handshake_timeout_ms", int(HELLO_S * 1000)))
    # a thread for each stream: those let in, as many as one host may have that are not, and some for others
    most = 2 * (federation.clients + SPARE) + MOST_OF_CONNECTION
    workers = ThreadPoolExecutor(most, thread_name_prefix="stream")
    server = grpc.server(workers, options=options)
    federation_pb2_grpc.add_FederationServicer_to_server(federation, server)  # type: ignore[no-untyped-call]
    status = _Health()
    status.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    try:
        if tls is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, tls.server_credentials())
    except RuntimeError as error:
        raise UserError("transport.listen", listen, "cannot be listened at") from error
    server.start()
    return server, port


@contextmanager
def shown_on_terminal(progress: bool) -> Iterator[None]:
    """Show on the terminal too who comes and goes; without `progress` it is not."""
    if not progress:
        yield
        return
    level, handler = _LOG.level, RichHandler(console=Console(stderr=True), show_path=False)
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOG.setLevel(level)
        _LOG.removeHandler(handler)
