"""Names and addresses of machines, as users write them."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Host: TypeAlias = str | IPv4Address | IPv6Address

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_LONGEST_NAME = 253  # RFC 1035, without the dot of the root


def is_loopback(host: Host) -> bool:
    """Whether a host is this machine alone; a name other than `localhost` is not looked up."""
    return host == "localhost" if isinstance(host, str) else host.is_loopback


def parse_host(text: str) -> Host | None:
    """A DNS name in lower case, or an IP address; None for what is neither.

    Names are those of RFC 1123 in ASCII (`xn--...` for others). One that ends in a number is none: resolvers
    read `127.1` or `0` as addresses. IPv6 addresses come without brackets and without a zone (`%eth0`).
    """
    try:
        address = ip_address(text)
    except ValueError:
        name = text.lower()
        last = name.rpartition(".")[2]
        known = text.isascii() and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None
        return name if known and re.fullmatch("[0-9]+|0x[0-9a-f]*", last) is None else None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address
