import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from threading import Event, Thread

import pytest

from tests.transport.proxy import BLOCK, Proxy

LONG = 300.0
"""Seconds that no step of these tests takes."""


def _echo(listener: socket.socket) -> None:
    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while block := connection.recv(BLOCK):
                    connection.sendall(block)
            except ConnectionError:
                pass

    threads = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        connection.settimeout(LONG)
        threads.append(Thread(target=answer, args=(connection,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = Thread(target=_echo, args=(listener,))
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    """In front of the server."""
    with Proxy(echo_port) as running:
        yield running


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """Connects to the server through the proxy."""
    with ExitStack() as opened:

        def connected() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG)
            return opened.enter_context(closing(made))

        yield connected


def is_reset(connection: socket.socket) -> bool:
    try:
        while connection.recv(BLOCK):
            pass
    except ConnectionResetError:
        return True
    return False


def received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (block := connection.recv(size - len(data))):
        data += block
    return data


def test_proxy_passes_bytes_unchanged_both_ways_and_counts_them(
    proxy: Proxy, connect: Callable[[], socket.socket]
) -> None:
    sent = bytes(range(256)) * 4096  # more than any buffer of the proxy
    connections = [connect(), connect()]
    for number, connection in enumerate(connections, 1):
        writer = Thread(target=connection.sendall, args=(sent,))
        writer.start()
        assert received(connection, len(sent)) == sent
        writer.join()
        assert (proxy.up, proxy.down) == (number * len(sent), number * len(sent))
    connections[0].shutdown(socket.SHUT_WR)  # an end passes as any byte does
    assert connections[0].recv(1) == b""
    connections[1].sendall(b"still here")
    assert received(connections[1], 10) == b"still here"


def test_proxy_that_cuts_resets_every_connection_and_lets_later_ones_pass(
    proxy: Proxy, connect: Callable[[], socket.socket]
) -> None:
    used, fresh = connect(), connect()
    used.sendall(b"x")
    assert received(used, 1) == b"x"
    fresh.sendall(b"never read")
    proxy.cut()
    for connection in (used, fresh):
        assert is_reset(connection)
    again = connect()
    again.sendall(b"y")
    assert received(again, 1) == b"y"


def test_proxy_that_cuts_resets_connections_to_the_server_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        with (
            Proxy(listener.getsockname()[1]) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client,
            listener.accept()[0] as server,
        ):
            server.settimeout(LONG)
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            proxy.cut()
            assert is_reset(server)


@pytest.mark.parametrize("towards", ["client", "server"])
def test_proxy_carries_the_other_way_on_a_half_closed_connection(towards: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        with (
            Proxy(listener.getsockname()[1]) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client,
            listener.accept()[0] as server,
        ):
            server.settimeout(LONG)
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            deaf, other = (client, server) if towards == "client" else (server, client)
            if towards == "client":
                proxy.half_close()
            else:
                proxy.half_close("server")
            assert deaf.recv(1) == b""
            deaf.sendall(b"is anyone there?")
            assert received(other, 16) == b"is anyone there?"
            passed = (proxy.up, proxy.down)
            other.sendall(b"lost")
            other.shutdown(socket.SHUT_WR)
            deaf.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""
            assert (proxy.up, proxy.down) == passed == ((17, 0) if towards == "client" else (1, 16))


def test_proxy_delays_each_block(echo_port: int) -> None:
    waited = []

    async def noted(seconds: float) -> None:
        waited.append(seconds)

    with (
        Proxy(echo_port, sleep=noted) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client,
    ):
        for data, delay in ((b"a", 0.0), (b"b", 7.5), (b"c", 100.0), (b"d", 0.0)):
            proxy.delay(delay)
            client.sendall(data)
            assert received(client, 1) == data
    assert waited == [7.5, 7.5, 100.0, 100.0]  # there and back


def test_proxy_passes_nothing_while_it_is_held_and_everything_after(echo_port: int) -> None:
    at_the_gate = Event()

    async def noted(seconds: float) -> None:
        at_the_gate.set()

    with Proxy(echo_port, sleep=noted) as proxy:
        proxy.delay(1.0)
        proxy.hold()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client:
            client.sendall(b"held")
            assert at_the_gate.wait(LONG)
            proxy.hold()  # back once the proxy has done all it does with what it has read
            assert (proxy.up, proxy.down) == (0, 0)
            proxy.release()
            assert received(client, 4) == b"held"
            assert (proxy.up, proxy.down) == (4, 4)
            proxy.hold()
            client.sendall(b"never read")
            proxy.cut()
            assert is_reset(client)
            assert (proxy.up, proxy.down) == (4, 4)


def test_proxy_that_refuses_new_connections_keeps_old_ones(
    proxy: Proxy, connect: Callable[[], socket.socket]
) -> None:
    old, port = connect(), proxy.port
    proxy.refuse()
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect()
    old.sendall(b"x")
    assert received(old, 1) == b"x"
    proxy.accept()
    proxy.accept()
    assert proxy.port == port
    new = connect()
    new.sendall(b"y")
    assert received(new, 1) == b"y"


def test_proxy_to_a_port_without_a_listener_resets_the_connection() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with Proxy(silent.getsockname()[1]) as proxy:
            try:
                with socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG) as client:
                    assert is_reset(client)
            except ConnectionResetError:  # before it knew that it was connected
                pass


def test_proxy_passes_a_reset_of_one_end_to_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        with Proxy(listener.getsockname()[1]) as running:
            client = socket.create_connection(("127.0.0.1", running.port), timeout=LONG)
            with listener.accept()[0] as server:
                server.settimeout(LONG)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                assert is_reset(server)


def test_proxy_that_ends_resets_its_connections(echo_port: int) -> None:
    async def forever(seconds: float) -> None:
        await asyncio.Event().wait()

    with Proxy(echo_port, sleep=forever) as proxy:
        port = proxy.port
        client = socket.create_connection(("127.0.0.1", port), timeout=LONG)
        waiting = socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG)
        proxy.delay(1.0)
        waiting.sendall(b"x")
    for connection in (client, waiting):
        with connection:
            assert is_reset(connection)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=LONG)
