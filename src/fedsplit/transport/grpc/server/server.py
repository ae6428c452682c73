"""The servicer: lets clients in, and carries messages between streams and the hub."""

import logging
import threading
from collections.abc import Iterator
from secrets import token_bytes
from typing import Any

import grpc

from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import VERSION, Assembler
from fedsplit.transport.grpc.protocol.tls import client_of
from fedsplit.transport.grpc.server.entrance import Comer, Entrance, TurnedAway
from fedsplit.transport.grpc.server.meeting import Link, Meeting, Refused

_LOG = logging.getLogger("fedsplit.network")
_SERVICE = "fedsplit.Federation"
HELLO_S = 10.0
"""Seconds within which a stream says who it is."""
READY_S = 900.0
"""Seconds within which a client has loaded its data and built its model."""


class Federation(federation_pb2_grpc.FederationServicer):
    """Answers the streams of clients.

    Args:
        secured: whether a client is who its certificate says.
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
        """At the end: tell how many streams were refused or closed, where not each was told."""
        self._turned_away.sum_up()

    def Attend(  # noqa: N802  (the name of the protocol)
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext
    ) -> Iterator[pb.FromServer]:
        """A stream of one client that trains, from its `Hello` to its end."""
        yield from self._stream(request_iterator, context, "ready")

    def Infer(  # noqa: N802  (the name of the protocol)
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext
    ) -> Iterator[pb.FromServer]:
        """A stream of one device that runs a deployed client model, from its `Hello` to its end."""
        yield from self._stream(request_iterator, context, "deployed")

    def _stream(
        self, request_iterator: Iterator[pb.FromClient], context: grpc.ServicerContext, joins_with: str
    ) -> Iterator[pb.FromServer]:
        comer = Comer(context.peer(), context.cancel)
        try:
            with self._entrance.held(comer):
                hello = self._first(request_iterator, context, "hello", self._hello_s).hello
                self._identify(hello, context)
                if joins_with != self._hub.joins_with:
                    raise Refused(self._hub.for_others, for_good=True)
                self._hub.greet(hello)
                self._entrance.name(comer, hello.client)
                identity = pb.Identity(run=self._hub.run, client=hello.client)
                yield pb.FromServer(identity=identity, welcome=self._welcome)
                joins = self._first(request_iterator, context, joins_with, READY_S)
                link = Link(context.cancel)
                self._hub.attach(link, hello, getattr(joins, joins_with))
        except Refused as error:
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
            raise Corrupt(f"the stream did not say {content}")
        return message

    def _identify(self, hello: pb.Hello, context: grpc.ServicerContext) -> None:
        if hello.version != VERSION:
            told = f"it speaks version {hello.version} of the protocol, this server {VERSION}"
            raise Refused(told, for_good=True)
        if len(hello.instance) != 16:
            raise Corrupt("an instance is named by 16 bytes")
        # typeshed has its values as bytes, and they are lists of them
        named = client_of(context.auth_context()) if self._secured else hello.client  # type: ignore[arg-type]
        if named != hello.client:
            told = f"its certificate is not that of client {hello.client}, who it says it is"
            raise Refused(told, for_good=True)

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
                    self._hub.received(link, client, parcel)
        except Corrupt as error:
            self._turned_away.tell(f"closed the stream of client {client}: {error}")
            context.cancel()
        except grpc.RpcError:  # the stream has ended
            pass
        except Exception:  # a mistake of ours: told whole, and one client's only
            _LOG.exception("closed the stream of client %s", client)
            context.cancel()
        finally:
            self._hub.detach(link, client, assembler.filled)
            link.close()
