"""Streams that are not let in yet: how many a peer may have, and what the log says of those turned away."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fedsplit.transport.grpc.server.meeting import Refused

_LOG = logging.getLogger("fedsplit.network")
MOST_OF_CONNECTION = 8
"""Streams of one connection that are not let in yet; a client has one, and for a moment its last one too."""
SPARE = 16
"""Streams of one host that are not let in yet, beside one for each client."""
_TOLD = 10


@dataclass(eq=False)
class Comer:
    """A stream that is not let in yet.

    Args:
        peer: connection that it came by, as gRPC names it (`ipv4:127.0.0.1:50000`).
    """

    peer: str
    cancel: Callable[[], object]

    @property
    def host(self) -> str:
        """Its peer without the port."""
        return self.peer.rpartition(":")[0]


class Entrance:
    """Where streams are until they are let in, so that no peer can take the place of others."""

    def __init__(self, clients: int) -> None:
        self._most_of_host = clients + SPARE
        self._lock = threading.Lock()
        self._of_connection: Counter[str] = Counter()
        self._of_host: Counter[str] = Counter()
        self._named: dict[int, Comer] = {}

    @contextmanager
    def held(self, comer: Comer) -> Iterator[None]:
        """While a stream is not let in.

        Raises:
            Refused: its peer has too many of those.
        """
        counts = (
            (self._of_connection, comer.peer, MOST_OF_CONNECTION),
            (self._of_host, comer.host, self._most_of_host),
        )
        with self._lock:
            for count, key, most in counts:
                if count[key] >= most:
                    raise Refused(f"{most} streams from there are not ready yet", for_good=False)
            for count, key, _ in counts:
                count[key] += 1
        try:
            yield
        finally:
            with self._lock:
                for count, key, _ in counts:
                    count[key] -= 1
                    if not count[key]:
                        del count[key]
                for client in [client for client, other in self._named.items() if other is comer]:
                    del self._named[client]

    def name(self, comer: Comer, client: int) -> None:
        """Note which client a held stream is of; one that was held for it before is ended."""
        with self._lock:
            before, self._named[client] = self._named.get(client), comer
        if before is not None:
            before.cancel()


class TurnedAway:
    """The log of streams that were refused or closed: the first few whole, of all others their number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = self._told = 0

    def tell(self, line: str) -> None:
        """One more: told at first, and then where the count has grown tenfold."""
        with self._lock:
            self._count += 1
            whole = self._count <= _TOLD
            if not whole and self._count < _TOLD * self._told:
                return
            self._told = self._count
        if whole:
            _LOG.warning("%s", line)
        else:
            _LOG.warning("%s streams were refused or closed so far, the last: %s", self._told, line)

    def sum_up(self) -> None:
        """At the end: how many there were, where not all were told."""
        with self._lock:
            count, told, self._told = self._count, self._told, self._count
        if count > told:
            _LOG.warning("%s streams were refused or closed in all", count)
