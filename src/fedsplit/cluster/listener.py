"""Look for what listens at the address of a cluster."""

import socket

from fedsplit.errors import first_line

_LISTEN_S = 10.0
"""Most seconds to wait for a connection."""


def look_for_listener(address: str, within: float) -> None:
    """Look for something that listens at an address, as Ray would go on asking for minutes.

    Args:
        address: `host:port`.
        within: most seconds to wait; more than ten are ten.

    Raises:
        ConnectionError: nothing listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=min(within, _LISTEN_S)).close()
    except OSError as error:
        raise ConnectionError(f"nothing listens at {address}: {first_line(error)}") from error
