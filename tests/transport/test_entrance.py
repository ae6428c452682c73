"""Streams that are not let in yet keep nobody out."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from secrets import token_bytes

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import VERSION, Parcel
from fedsplit.transport.grpc.server.listening import start
from fedsplit.transport.grpc.server.meeting import Link, StreamRefused
from fedsplit.transport.grpc.server.server import (
    MOST_OF_CONNECTION,
    SPARE,
    Comer,
    Entrance,
    Federation,
    TurnedAway,
)
from tests.transport.loopback import LONG

CLIENTS = 2


def _comer(peer: str, cancel: Callable[[], object] = lambda: None) -> Comer:
    return Comer(peer, cancel)


def test_connection_and_a_host_have_so_many_streams_that_are_not_let_in() -> None:
    entrance = Entrance(CLIENTS)
    with ExitStack() as stack:
        for _ in range(MOST_OF_CONNECTION):
            stack.enter_context(entrance.hold(_comer("ipv4:10.0.0.1:1")))
        with pytest.raises(StreamRefused, match="8 streams from there are not ready yet") as refused:
            stack.enter_context(entrance.hold(_comer("ipv4:10.0.0.1:1")))
        assert not refused.value.for_good
        for port in range(CLIENTS + SPARE - MOST_OF_CONNECTION):
            stack.enter_context(entrance.hold(_comer(f"ipv4:10.0.0.1:{port + 2}")))
        with pytest.raises(StreamRefused, match="18 streams from there"):
            stack.enter_context(entrance.hold(_comer("ipv4:10.0.0.1:99")))
        for other in ("ipv4:10.0.0.2:1", "ipv6:[::1]:1"):
            stack.enter_context(entrance.hold(_comer(other)))
    for _ in range(3):  # all have left
        with ExitStack() as stack:
            for _ in range(MOST_OF_CONNECTION):
                stack.enter_context(entrance.hold(_comer("ipv4:10.0.0.1:1")))


def test_newer_stream_of_a_client_ends_that_before_it() -> None:
    entrance, ended = Entrance(CLIENTS), list[str]()
    first, second, other = (_comer(f"ipv4:10.0.0.{i}:1", lambda i=i: ended.append(i)) for i in range(3))  # type: ignore[misc]
    with entrance.hold(first), entrance.hold(other):
        entrance.name(first, 0)
        entrance.name(other, 1)
        with entrance.hold(second):
            entrance.name(second, 0)
            assert ended == [0]
        third = _comer("ipv4:10.0.0.3:1")
        with entrance.hold(third):
            entrance.name(third, 0)  # nobody is held for it any more
    assert ended == [0]


def test_log_of_streams_that_are_turned_away_does_not_grow_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turned_away = TurnedAway()
    with caplog.at_level(logging.INFO, "fedsplit.network"):
        for number in range(1, 25_001):
            turned_away.tell(f"refused {number}")
        turned_away.sum_up()
        turned_away.sum_up()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        *(f"refused {number}" for number in range(1, 11)),
        "100 streams were refused or closed so far, the last: refused 100",
        "1000 streams were refused or closed so far, the last: refused 1000",
        "10000 streams were refused or closed so far, the last: refused 10000",
        "25000 streams were refused or closed in all",
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 100])
def test_what_was_told_is_not_summed_up(caplog: pytest.LogCaptureFixture, count: int) -> None:
    turned_away = TurnedAway()
    for _ in range(count):
        turned_away.tell("refused")
    caplog.clear()
    turned_away.sum_up()
    assert caplog.records == []


class _Anyone:
    """Lets in whoever is ready."""

    run, joins_with, for_others = bytes(16), "ready", ""

    def __init__(self) -> None:
        self.here: list[int] = []

    def greet(self, hello: pb.Hello) -> None:
        pass

    def attach(self, link: Link, hello: pb.Hello, joins: pb.Ready) -> None:
        self.here.append(hello.client)
        link.send(Parcel(pb.FromServer(finish=pb.Finish())))
        link.close()

    def detach(self, link: Link, client: int, pending: int) -> None:
        pass


@pytest.fixture
def served() -> Iterator[tuple[int, _Anyone]]:
    hub = _Anyone()
    server, port = start(
        Federation(hub, pb.Plan(), clients=CLIENTS, secured=False), listen="127.0.0.1:0", tls=None
    )  # type: ignore[arg-type]
    yield port, hub
    server.stop(None).wait()


def _hello(client: int) -> pb.FromClient:
    return pb.FromClient(hello=pb.Hello(version=VERSION, client=client, instance=token_bytes(16)))


def test_peers_that_are_never_ready_keep_no_client_and_no_health_check_out(
    served: tuple[int, _Anyone],
) -> None:
    port, hub = served
    outbox: SimpleQueue[pb.FromClient | None] = SimpleQueue()  # nothing comes after what is said first
    with ExitStack() as stack:

        def channel() -> grpc.Channel:
            own = (("grpc.use_local_subchannel_pool", 1),)
            return stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", own))

        def said(message: pb.FromClient | None) -> Iterator[pb.FromClient]:
            if message is not None:
                yield message
            yield from iter(outbox.get, None)

        streams = []
        for connection in range(3):
            stub = federation_pb2_grpc.FederationStub(channel())  # type: ignore[no-untyped-call]
            for number in range(34):
                silent = None if connection == 2 else _hello(number % CLIENTS)
                streams.append(stub.Attend(said(silent), timeout=LONG))
        for stream in streams[:68]:  # each is welcomed, refused or ended
            with suppress(grpc.RpcError):
                assert next(stream).WhichOneof("content") in ("welcome", "refusal")
        checked = health_pb2_grpc.HealthStub(channel()).Check(health_pb2.HealthCheckRequest(), timeout=LONG)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        for client in range(CLIENTS):
            stub = federation_pb2_grpc.FederationStub(channel())  # type: ignore[no-untyped-call]
            messages: SimpleQueue[pb.FromClient | None] = SimpleQueue()
            messages.put(_hello(client))
            stream = stub.Attend(iter(messages.get, None), timeout=LONG)
            assert next(stream).WhichOneof("content") == "welcome"
            messages.put(pb.FromClient(ready=pb.Ready(samples=1)))
            assert next(stream).WhichOneof("content") == "finish"
            messages.put(None)
        assert hub.here == [0, 1]
        for stream in streams:
            stream.cancel()
        for _ in streams:
            outbox.put(None)
