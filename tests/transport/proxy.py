"""A TCP proxy on loopback whose connections tests and `benchmarks/chaos.py` disturb at any moment."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from types import TracebackType
from typing import Any, Literal

BLOCK = 65536
"""Bytes that are passed on at a time, at most."""

Sleep = Callable[[float], Awaitable[object]]


@dataclass(eq=False)
class _Connection:
    client: socket.socket
    server: socket.socket
    task: "asyncio.Task[None] | None" = None
    closed_towards: set[str] = field(default_factory=set)


class Proxy:
    """Passes bytes between those who connect to `port` and whoever listens on `target_port`.

    One thread does everything, so that what a method does is done when it returns. "Current" connections are
    all that clients have made by then.

    Args:
        target_port: on 127.0.0.1.
        sleep: how delays are waited for; a test of its own can do without waiting.
    """

    def __init__(self, target_port: int, sleep: Sleep = asyncio.sleep) -> None:
        self.target_port = target_port
        self.up = 0
        """Bytes passed on from clients to the target."""
        self.down = 0
        """Bytes passed on from the target to clients."""
        self._sleep = sleep
        self._delay = 0.0
        self._mark: tuple[int, Callable[[], object]] | None = None
        self._connections: set[_Connection] = set()
        self._listener: socket.socket | None = None

    @property
    def port(self) -> int:
        """The same for as long as the proxy is there, also while it refuses connections."""
        port: int = self._placeholder.getsockname()[1]
        return port

    def __enter__(self) -> "Proxy":
        self._placeholder = _bound(0)  # keeps the port ours while nobody listens on it
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._placeholder.close()

    def delay(self, seconds: float) -> None:
        """Let each block of bytes wait from now on, in both directions."""
        self._do(self._set_delay(seconds))

    def cut(self) -> None:
        """Reset all current connections, at both ends (RST)."""
        self._do(self._cut())

    def half_close(self, towards: Literal["client", "server"] = "client") -> None:
        """End all current connections in one direction: that side reads the end, and can still send.

        What the other side still sends gets lost on the way.
        """
        self._do(self._half_close(towards))

    def hold(self) -> None:
        """Let nothing pass; connections stay open, and new ones are accepted."""
        self._do(self._hold())

    def release(self) -> None:
        """Let pass what was held, and all that follows."""
        self._do(self._release())

    def when_up(
        self, size: int, act: Literal["cut", "hold"], tell: Callable[[], object] = lambda: None
    ) -> None:
        """Cut or hold once so many bytes more have gone up, and before the next.

        Args:
            size: bytes.
            act: what is done.
            tell: is called then, in the proxy's thread, and must not wait.
        """

        def disturb() -> None:
            if act == "cut":
                self._cut_now()
            else:
                self._flowing.clear()
            tell()

        self._do(self._set_mark(size, disturb))

    def refuse(self) -> None:
        """Refuse new connections; current ones stay."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Accept new connections again."""
        self._do(self._listen())

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=300)  # a busy machine keeps it

    # Everything below runs in the proxy's thread.

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._listen()

    async def _stop(self) -> None:
        await self._refuse()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set_delay(self, seconds: float) -> None:
        self._delay = seconds

    async def _set_mark(self, size: int, act: Callable[[], object]) -> None:
        self._mark = (self.up + size, act)

    async def _hold(self) -> None:
        self._flowing.clear()

    async def _release(self) -> None:
        self._flowing.set()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen()
            self._loop.add_reader(self._listener, self._accept)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._accept()  # those who are connected already, as they see it
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _cut(self) -> None:
        self._cut_now()

    def _cut_now(self) -> None:
        self._accept()
        for connection in tuple(self._connections):
            self._reset(connection)

    async def _half_close(self, towards: str) -> None:
        self._accept()
        for connection in self._connections:
            self._end(connection, towards)

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            client.setblocking(False)
            server = socket.socket()
            server.setblocking(False)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, server)
            self._connections.add(connection)
            connection.task = self._loop.create_task(self._serve(connection))

    async def _serve(self, connection: _Connection) -> None:
        try:
            await self._loop.sock_connect(connection.server, ("127.0.0.1", self.target_port))
            if "server" in connection.closed_towards:
                connection.server.shutdown(socket.SHUT_WR)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(connection, "server"))
                both.create_task(self._pass_on(connection, "client"))
        except* OSError:  # one end is gone: the other finds out in the same way
            self._reset(connection)
        finally:
            self._connections.discard(connection)
            connection.client.close()
            connection.server.close()

    async def _pass_on(self, connection: _Connection, towards: str) -> None:
        source, sink = connection.client, connection.server
        if towards == "client":
            source, sink = sink, source
        while block := await self._loop.sock_recv(source, BLOCK):
            if self._delay:
                await self._sleep(self._delay)
            await self._flowing.wait()
            if towards in connection.closed_towards:
                continue
            # Counted first: who has got the bytes finds them counted.
            if towards == "client":
                self.down += len(block)
            elif self._mark is not None and self._mark[0] <= self.up + len(block):
                (end, act), self._mark = self._mark, None
                before, block = block[: end - self.up], block[end - self.up :]
                self.up += len(before)
                await self._loop.sock_sendall(sink, before)
                act()
                await self._flowing.wait()
                self.up += len(block)
            else:
                self.up += len(block)
            await self._loop.sock_sendall(sink, block)
        await self._flowing.wait()
        self._end(connection, towards)

    def _end(self, connection: _Connection, towards: str) -> None:
        if towards not in connection.closed_towards:
            connection.closed_towards.add(towards)
            with suppress(OSError):  # not connected yet, or gone
                (connection.server if towards == "server" else connection.client).shutdown(socket.SHUT_WR)

    def _reset(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for each in (connection.client, connection.server):
            if each.fileno() >= 0:
                self._loop.remove_reader(each)
                self._loop.remove_writer(each)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
        if connection.task is not None and connection.task is not asyncio.current_task():
            connection.task.cancel()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
