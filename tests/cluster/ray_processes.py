"""Processes that Ray leaves or has, found by what they were started with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

MARK = "FEDSPLIT_TESTED"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1 and ::1 as /proc/net writes them."""
_LISTENS = "0A"


@contextmanager
def marked() -> Iterator[str]:
    """While processes that are started here inherit a mark of their own."""
    mark = uuid4().hex
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        del os.environ[MARK]


def processes(mark: str) -> dict[int, str]:
    """Command lines of other processes that live and have a mark, by their number."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal() and int(place.name) != os.getpid():
            with suppress(OSError):
                if f"{MARK}={mark}".encode() in (place / "environ").read_bytes():
                    words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if words:  # what has ended and was not waited for has none
                        found[int(place.name)] = words
    return found


def listening(pids: list[int]) -> set[str]:
    """Local addresses, in hexadecimal digits, that processes listen at."""
    sockets: set[str] = set()
    for pid in pids:
        for link in (Path("/proc") / str(pid) / "fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *others = line.split()
            if state == _LISTENS and f"socket:[{others[5]}]" in sockets:
                found.add(local.partition(":")[0])
    return found
