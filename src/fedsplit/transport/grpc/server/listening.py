"""Where a server listens, and who it shows to come and go."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler

from fedsplit.errors import UserError
from fedsplit.transport.grpc.protocol.tls import Tls, require_tls_beyond_loopback

_LOG = logging.getLogger("fedsplit.network")


def tls_to_listen_with(listen: str, tls: str | None, *, spawn: bool, whom: str) -> Tls | None:
    """What a server is known by, once it is found out that it can listen, before anything is written.

    Args:
        listen: address and port.
        tls: folder of its certificate; None: without.
        spawn: whether it starts those that it serves.
        whom: it serves, in errors: `clients` or `devices`.

    Raises:
        UserError: it cannot be.
    """
    read = Tls.read(tls, "transport.tls") if tls is not None else None
    require_tls_beyond_loopback(listen, read)
    if read is not None:
        read.server_credentials()  # refuses a client's
        if spawn:
            raise UserError("transport.tls", tls, f"is for {whom} that dial in: transport.spawn=false")
    _refuse_taken(listen)
    return read


def _refuse_taken(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError("transport.listen", listen, f"cannot be listened at ({error.strerror})") from error


@contextmanager
def shown_on_terminal(progress: bool) -> Iterator[None]:
    """While who comes and goes is shown on the terminal too; without `progress` it is not."""
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
