"""Entrance of a server, which lets streams into a hub of clients that train, or of devices that infer."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, Generic, TypeVar

from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Parcel


class StreamRefused(Exception):
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
        """End the stream at once."""
        self.close()
        self._cancel()

    def frames(self) -> Iterator[pb.FromServer]:
        """Frames that are sent, as they come, until the end."""
        while (parcel := self._outbox.get()) is not None:
            yield from parcel.frames()


@dataclass
class Session:
    """One client or device, as the server sees it.

    Args:
        link: stream of the client; None while it is not here.
        instance: process of the client; empty until one came.
    """

    client: int
    link: Link | None = None
    instance: bytes = b""


TELL_S = 30.0
"""Seconds between two lines that tell who is waited for."""


OwnSession = TypeVar("OwnSession", bound=Session)


class Meeting(ABC, Generic[OwnSession]):
    """Meeting point of clients' streams and the code that asks them. Calls come from many threads.

    Args:
        run: 16 bytes that name it.
        sessions: one of each client, in order.
    """

    joins_with: ClassVar[str]
    """Name of the message by which a welcomed client says that it has built its part."""
    for_others: ClassVar[str]
    """Refusal of a client that dialled in for something else."""
    role: ClassVar[str]
    """Noun for a member in log lines: `client` or `device`."""
    expectation: ClassVar[str]
    """Refusal of a member whose number is out of range; the range of numbers is added to it."""

    def __init__(self, run: bytes, sessions: Sequence[OwnSession]) -> None:
        self.run, self._sessions = run, sessions
        self.condition = threading.Condition()
        self._finished = False

    def greet(self, hello: pb.Hello) -> None:
        """Raise `Refused` where a client with this `Hello` may not come in."""
        if hello.client >= len(self._sessions):
            message = f"{self.role} {hello.client}: {self.expectation} 0 to {len(self._sessions) - 1}"
            raise StreamRefused(message, for_good=True)
        session = self._sessions[hello.client]
        with self.condition:
            if session.link is not None and session.instance != hello.instance:
                raise StreamRefused(f"{self.role} {hello.client} is here already", for_good=False)

    @abstractmethod
    def attach(self, link: Link, hello: pb.Hello, joins: Any) -> None:
        """Let a client in that has said `joins_with`.

        Raises:
            Refused: it cannot take part.
            Corrupt: no client says this of itself.
        """

    @abstractmethod
    def detach(self, link: Link, client: int, pending: int) -> None:
        """A stream has ended, with so many bytes of payload that belong to no whole message."""

    @abstractmethod
    def admit(self, link: Link, client: int, frame: pb.FromClient) -> bool:
        """Check the tensors that a frame announces; true if they are waited for.

        Raises:
            Corrupt: no client sends them.
        """

    @abstractmethod
    def receive(self, link: Link, client: int, parcel: Parcel[pb.FromClient]) -> None:
        """A message of a client is whole.

        Raises:
            Corrupt: no client answers like this.
        """

    def _replace_link(self, session: OwnSession, link: Link, hello: pb.Hello) -> None:
        """Let a stream take the place of the one that its client had before."""
        if session.link is not None:
            session.link.cut()
        session.link, session.instance = link, hello.instance

    def _let_go(self, session: OwnSession, *, tell: bool) -> bool:
        """End a client's stream, once it has been told that all has ended; whether it is told."""
        if session.link is None:
            return False
        if tell:
            identity = pb.Identity(run=self.run, client=session.client)
            session.link.send(Parcel(pb.FromServer(identity=identity, finish=pb.Finish())))
        session.link.close()
        return tell


class Reminder:
    """Says when it is time to tell again who is waited for."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def is_due(self) -> bool:
        """True if nothing was told for `TELL_S`; then it counts as told now."""
        now = time.monotonic()
        if now - self._told < TELL_S:
            return False
        self._told = now
        return True
