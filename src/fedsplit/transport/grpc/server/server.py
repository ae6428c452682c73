"""The servicer: lets clients in, and carries messages between streams and the hub."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any

import grpc
from typing_extensions import override

from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import VERSION, Assembler
from fedsplit.transport.grpc.protocol.tls import client_of
from fedsplit.transport.grpc.server.meeting import Link, Meeting, StreamRefused

_LOG = logging.getLogger("fedsplit.network")
MOST_OF_CONNECTION = 8
"""Streams of one connection that are not let in yet; a client has one, and for a moment its last one too."""
SPARE = 16
"""Streams of one host that are not let in yet, beside one for each client."""
_TOLD = 10


@dataclass(eq=False)
class Comer:
    """A stream that is not let in yet; `peer` is its connection as gRPC names it (`ipv4:127.0.0.1:50000`)."""

    peer: str
    cancel: Callable[[], object]

    @property
    def host(self) -> str:
        """Address of the stream's peer without the port."""
        return self.peer.rpartition(":")[0]


class Entrance:
    """Place of streams until they are let in, so that no peer can take the place of others."""

    def __init__(self, clients: int) -> None:
        self._most_of_host = clients + SPARE
        self._lock = threading.Lock()
        self._of_connection: Counter[str] = Counter()
        self._of_host: Counter[str] = Counter()
        self._named: dict[int, Comer] = {}

    @contextmanager
    def hold(self, comer: Comer) -> Iterator[None]:
        """Count a stream while it is not let in; `Refused` where its peer has too many of those."""
        counts = (
            (self._of_connection, comer.peer, MOST_OF_CONNECTION),
            (self._of_host, comer.host, self._most_of_host),
        )
        with self._lock:
            for count, key, most in counts:
                if count[key] >= most:
                    raise StreamRefused(f"{most} streams from there are not ready yet", for_good=False)
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
        """Tell at the end how many there were, where not all were told."""
        with self._lock:
            count, reported, self._told = self._count, self._told, self._count
        if count > reported:
            _LOG.warning("%s streams were refused or closed in all", count)


_SERVICE = "fedsplit.Federation"
HELLO_S = 10.0
"""Seconds within which a stream says who it is."""
READY_S = 900.0
"""Seconds within which a client has loaded its data and built its model."""


class Federation(federation_pb2_grpc.FederationServicer):
    """Answers the streams of clients.

    Args:
        secured: True if a client is who its certificate says.
        hello_s: see `HELLO_S`.
    """

    def __init__(
        self, hub: Meeting[Any], plan: pb.Plan, *, clients: int, secured: bool, hello_s: float = HELLO_S
    ) -> None:
        self._hub, self._secured, self._hello_s = hub, secured, hello_s
        self._entrance, self._turned_away = Entrance(clients), TurnedAway()
        self.clients = clients
        self._welcome = pb.Welcome(server=token_bytes(16), plan=plan)

    def sum_up(self) -> None:
        """Tell at the end how many streams were refused or closed, where not each was told."""
        self._turned_away.sum_up()

    @override
    def Attend(
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext
    ) -> Iterator[pb.FromServer]:
        """A stream of one client that trains, from its `Hello` to its end."""
        yield from self._stream(request_iterator, context, "ready")

    @override
    def Infer(
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext
    ) -> Iterator[pb.FromServer]:
        """A stream of one device that runs a deployed client model, from its `Hello` to its end."""
        yield from self._stream(request_iterator, context, "deployed")

    def _stream(
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext, joins_with: str
    ) -> Iterator[pb.FromServer]:
        comer = Comer(context.peer(), context.cancel)
        try:
            with self._entrance.hold(comer):
                hello = self._first(request_iterator, context, "hello", self._hello_s).hello
                self._identify(hello, context)
                if joins_with != self._hub.joins_with:
                    raise StreamRefused(self._hub.for_others, for_good=True)
                self._hub.greet(hello)
                self._entrance.name(comer, hello.client)
                identity = pb.Identity(run=self._hub.run, client=hello.client)
                yield pb.FromServer(identity=identity, welcome=self._welcome)
                joins = self._first(request_iterator, context, joins_with, READY_S)
                link = Link(context.cancel)
                self._hub.attach(link, hello, getattr(joins, joins_with))
        except StreamRefused as error:
            self._turned_away.tell(f"refused: {error.reason} ({comer.peer})")
            refusal = pb.Refusal(reason=error.reason, for_good=error.for_good)
            yield pb.FromServer(identity=pb.Identity(run=self._hub.run), refusal=refusal)
            return
        except Corrupt as error:
            self._turned_away.tell(f"closed a stream from {comer.peer}: {error}")
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        if not context.add_callback(link.close):  # it has ended meanwhile
            link.close()
        reader = threading.Thread(
            target=self._read, args=(request_iterator, context, link, hello.client), daemon=True
        )
        reader.start()
        yield from link.frames()

    def _first(
        self,
        messages: Iterator[pb.FromClient],
        context: grpc.ServicerContext,
        content: str,
        seconds: float,
    ) -> pb.FromClient:
        """The next message, which must be of this kind, and in time."""
        timer = threading.Timer(seconds, context.cancel)
        timer.daemon = True
        timer.start()
        try:
            message = next(messages, None)
        except Exception as error:  # grpc raises a bare Exception where the stream has ended
            raise Corrupt(f"the stream ended before its {content}") from error
        finally:
            timer.cancel()
        if message is None:
            raise Corrupt(f"the stream ended before its {content}")
        if message.WhichOneof("content") != content or message.tensors:
            raise Corrupt(f"the stream did not begin with {content}")
        return message

    def _identify(self, hello: pb.Hello, context: grpc.ServicerContext) -> None:
        if hello.version != VERSION:
            message = f"it speaks version {hello.version} of the protocol, this server {VERSION}"
            raise StreamRefused(message, for_good=True)
        if len(hello.instance) != 16:
            raise Corrupt("the name of an instance must have 16 bytes")
        # typeshed has its values as bytes, and they are lists of them
        named = client_of(context.auth_context()) if self._secured else hello.client  # type: ignore[arg-type]
        if named != hello.client:
            message = f"its certificate is not that of client {hello.client}, who it says it is"
            raise StreamRefused(message, for_good=True)

    def _read(
        self,
        messages: Iterator[pb.FromClient],
        context: grpc.ServicerContext,
        link: Link,
        client: int,
    ) -> None:
        assembler: Assembler[pb.FromClient] = Assembler(lambda frame: self._hub.admit(link, client, frame))
        try:
            for frame in messages:
                parcel = assembler.add(frame)
                if parcel is not None:
                    self._hub.receive(link, client, parcel)
        except Corrupt as error:
            self._turned_away.tell(f"closed the stream of client {client}: {error}")
            context.cancel()
        except grpc.RpcError:  # the stream has ended
            pass
        except Exception:  # a mistake of ours: told whole, and one client's only
            _LOG.exception("closed the stream of client %s", client)
            context.cancel()
        finally:
            self._hub.detach(link, client, assembler.received_bytes)
            link.close()
