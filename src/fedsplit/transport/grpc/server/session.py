"""One client as the server sees it: its stream, what it was asked, and what it answered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from torch import Tensor

from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.wire import Parcel


class Lost(Exception):
    """A client cannot go on with the round; it is to be begun again."""

    def __init__(self, client: int, reason: str) -> None:
        super().__init__(client, reason)
        self.client, self.reason = client, reason


class Late(Exception):
    """Clients that have not done their part in time."""

    def __init__(self, clients: Sequence[int]) -> None:
        super().__init__(clients)
        self.clients = clients


class Refused(Exception):
    """A stream that is not let in; `for_good` says whether trying again would end the same."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.reason, self.for_good = reason, for_good


class Link:
    """The server's end of a stream.

    Args:
        cancel: ends the stream.
    """

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


@dataclass(frozen=True)
class Answer:
    """A message of a client, its tensors, and the bytes of payload that they came in."""

    head: pb.FromClient
    tensors: Mapping[str, Tensor]
    size: int


@dataclass
class Asked:
    """A verb that a client was sent, or will be once it is here, and what it answered so far.

    Weights that it asks for come as a difference, or not.
    """

    verb: Parcel[pb.FromServer]
    difference: bool
    sent: bool = False
    answers: list[Answer] = field(default_factory=list)
    done: bool = False


@dataclass
class Session:
    """One client, as the server sees it."""

    client: int
    link: Link | None = None
    instance: bytes = b""
    samples: int = 0
    asked: Asked | None = None
    trouble: str | None = None
    told: bool = False
