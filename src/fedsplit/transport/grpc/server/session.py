"""One client or device as the server sees it: its stream, and which process it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel


class Refused(Exception):
    """A stream that is not let in; `for_good` says whether trying again would end the same."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.reason, self.for_good = reason, for_good


class Link:
    """The server's end of a stream."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        self._outbox: SimpleQueue[Parcel[pb.FromServer] | None] = SimpleQueue()

    def send(self, parcel: Parcel[pb.FromServer]) -> None:
        """Send a message after those before."""
        self._outbox.put(parcel)

    def close(self) -> None:
        """Send nothing more after those before."""
        self._outbox.put(None)

    def cut(self) -> None:
        """End the stream now."""
        self.close()
        self._cancel()

    def frames(self) -> Iterator[pb.FromServer]:
        """What is sent, as it comes, until the end."""
        while (parcel := self._outbox.get()) is not None:
            yield from parcel.frames()


@dataclass
class Session:
    """One client or device, as the server sees it.

    Args:
        link: its stream; None while it is not here.
        instance: which process it is; empty until one came.
    """

    client: int
    link: Link | None = None
    instance: bytes = b""
