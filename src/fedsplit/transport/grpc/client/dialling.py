"""A client's end of a stream: dials in, for ever, until what it came for has ended."""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from secrets import token_bytes
from typing import Any, NotRequired, TypeAlias, TypedDict, TypeVar, Unpack

import grpc

from fedsplit.config.run_config import RunConfig
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.machine.allowance import allowing_a_client
from fedsplit.quant.message import Corrupt
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import OPTIONS, VERSION, Assembler, Parcel, one_line
from fedsplit.transport.grpc.protocol.plan import configuration_of_client, preparation
from fedsplit.transport.grpc.protocol.tls import Tls, is_loopback, parse_host
from fedsplit.transport.transport import Member

Outbox: TypeAlias = SimpleQueue[Parcel[pb.FromClient] | None]
"""Queue of messages to the server; None ends the stream."""
Built = TypeVar("Built")

_LOG = logging.getLogger("fedsplit.network")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_STREAM_S = 6 * 3600.0
"""Seconds after which a stream is opened anew, so that none lives without a deadline."""


class Membership(TypedDict):
    """Client that dials in, and the server's address.

    Args:
        server: address and port.
        tls: identity of the client, and whom it trusts; None without TLS.
        own: keys of the configuration that are this machine's own, such as `dataset.root`.
        memory_mb: MB of memory that a run may ask for; None: half of this machine's.
    """

    server: str
    client: int
    tls: Tls | None
    own: Mapping[str, object]
    memory_mb: NotRequired[float | None]


class Dialler(ABC):
    """Client or device that dials in; a subclass says what it does on a stream."""

    def __init__(self, **who: Unpack[Membership]) -> None:
        self._server, self.client, self._tls, self._own = who["server"], who["client"], who["tls"], who["own"]
        self._memory_mb = who.get("memory_mb")
        self._instance = token_bytes(16)
        self.has_served = False
        """True if the server used this stream: if it breaks, the next one is dialled at once."""

    @abstractmethod
    def call(self, stub: federation_pb2_grpc.FederationStub) -> Any:
        """The call that opens the stream."""

    @abstractmethod
    def joins(self, run: bytes, welcome: pb.Welcome) -> Mapping[str, pb.Ready | pb.Deployed]:
        """Messages that this client joins with, by name, once its part of a run is built.

        Raises:
            Corrupt: no server sends such a plan.
            RunFailed: its part cannot be built here.
            UserError: likewise.
        """

    @abstractmethod
    def admit(self, frame: pb.FromServer) -> bool:
        """Admit a frame; see `Assembler`."""

    @abstractmethod
    def answer(self, parcel: Parcel[pb.FromServer]) -> list[Parcel[pb.FromClient]]:
        """The answer to a message.

        Raises:
            Corrupt: no server sends it.
        """

    def serve(self, stream: Iterator[pb.FromServer], outbox: Outbox) -> bool:
        """Everything on one stream, until it ends; whether all has ended with it.

        Raises:
            Corrupt: no server sends what came.
            RunFailed: the server does not let this client in, and will not.
            UserError: what it came for cannot be built here.
        """
        hello = pb.Hello(version=VERSION, client=self.client, instance=self._instance)
        outbox.put(Parcel(pb.FromClient(hello=hello)))
        welcomed = False
        assembler: Assembler[pb.FromServer] = Assembler(self.admit)
        for frame in stream:
            content = frame.WhichOneof("content")
            if content in ("refusal", "finish", "welcome") and frame.tensors:
                raise Corrupt(f"a message {content} announces tensors, which it never carries")
            if content == "refusal":
                self._refuse(frame.refusal)
            elif content == "finish":
                return True
            elif content == "welcome":
                if welcomed:
                    raise Corrupt("the server sent a second welcome")
                identity = frame.identity
                if identity.client != self.client or len(identity.run) != 16:
                    raise Corrupt("the server sent a welcome for another client")
                joins = self.joins(identity.run, frame.welcome)
                outbox.put(Parcel(pb.FromClient(identity=identity, **joins)))  # type: ignore[arg-type]
                welcomed = True
            elif not welcomed:
                raise Corrupt(f"{content} came before a welcome")
            elif (parcel := assembler.add(frame)) is not None:
                for answer in self.answer(parcel):
                    outbox.put(answer)
        return False

    def _refuse(self, refusal: pb.Refusal) -> None:
        reason = one_line(refusal.reason)
        if refusal.for_good:
            raise RunFailed(f"the server refused: {reason}")
        _LOG.info("client %s: not yet: %s", self.client, reason)

    def build_part(self, what: str, plan: pb.Plan, build: Callable[[RunConfig, Member], Built]) -> Built:
        """Build this client's part of what a plan describes.

        Args:
            what: is built, for errors.
            build: makes it, from its configuration and what is told of the run's data.

        Raises:
            Corrupt: no server sends such a plan.
            RunFailed: it cannot be built here.
            UserError: likewise.
        """
        config = configuration_of_client(plan, self.client, self._own)
        member = Member(self.client, preparation(plan))
        try:
            with allowing_a_client(self._memory_mb):
                return build(config, member)
        except (UserError, RunFailed, Corrupt):
            raise
        except Exception as error:  # whatever models, data and optimizers raise
            raise RunFailed(f"{what} cannot be built here: {one_line(first_line(error))}") from error

    def attend(self) -> None:
        """Serve until the run has ended, whatever happens to the network meanwhile.

        Raises:
            RunFailed: the server does not let this client in, and will not.
            UserError: the run cannot be built here.
        """
        pause = _FIRST_PAUSE_S
        while True:
            self.has_served = False
            try:
                if self._attend_once():
                    return
                message = "the stream ended"
            except grpc.RpcError as error:
                message = _reason(error)
            except Corrupt as error:
                message = f"the server sent what cannot be: {error}"
            pause = _FIRST_PAUSE_S if self.has_served else min(2 * pause, _LONGEST_PAUSE_S)
            wait = random.uniform(0, pause)  # full jitter: clients that lost one server do not come at once
            _LOG.info("client %s: %s; again in %.1f s", self.client, message, wait)
            time.sleep(wait)

    def _attend_once(self) -> bool:
        """One stream; whether the run has ended with it."""
        options = channel_options(self._server)
        if self._tls is None:
            channel = grpc.insecure_channel(self._server, options)
        else:
            channel = grpc.secure_channel(self._server, self._tls.channel_credentials(), options)
        outbox: Outbox = SimpleQueue()
        with channel:
            stub = federation_pb2_grpc.FederationStub(channel)  # type: ignore[no-untyped-call]
            stream = self.call(stub)(_frames(outbox), timeout=_STREAM_S)
            try:
                return self.serve(stream, outbox)
            finally:
                outbox.put(None)
                stream.cancel()


def channel_options(server: str) -> tuple[tuple[str, int], ...]:
    """Options of a channel to a server, `host:port`: one on loopback is reached without a proxy.

    A proxy that the environment names (`http_proxy`, ...) would look for it on a loopback of its own.
    """
    host = parse_host(server.rpartition(":")[0].strip("[]"))
    options = (*OPTIONS, ("grpc.enable_retries", 0))
    return (*options, ("grpc.enable_http_proxy", 0)) if host is not None and is_loopback(host) else options


def _frames(outbox: Outbox) -> Iterator[pb.FromClient]:
    while (parcel := outbox.get()) is not None:
        yield from parcel.frames()


def _reason(error: grpc.RpcError) -> str:
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if code is None or details is None:
        return "the stream broke"
    # the last of a chain of causes is the one that a user can do something about
    return f"{code().name.lower()}, {one_line(details() or 'no details').rpartition(': ')[2]}"
