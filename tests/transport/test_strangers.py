"""Whoever is not a client of a run is turned away in time, in one line, and changes nothing."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from secrets import token_bytes
from threading import Thread

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedsplit.building.run import run_of_member
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.client.client import TrainingClient
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol import federation_pb2_grpc
from fedsplit.transport.grpc.protocol.frames import VERSION
from fedsplit.transport.grpc.protocol.tls import Tls
from fedsplit.transport.grpc.server import listening as server_listening
from fedsplit.transport.grpc.server import server
from tests.conftest import Build
from tests.transport.loopback import LONG
from tests.transport.runs import assert_same, ran

HELLO_S = 2.0  # so that who says hello is in time on a busy machine too
"""Seconds that strangers are given here; closing may take a few more where all processors are busy."""
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Running:
    """A run in this process, which waits for its clients."""

    experiment: Experiment
    port: int = 0
    threads: list[Thread] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def start(self, work: Callable[[], object]) -> None:
        """Work on something beside."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self.failures.append(error)

        self.threads.append(Thread(target=guarded, daemon=True))
        self.threads[-1].start()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that comes."""
        deadline = time.monotonic() + LONG
        while not condition():
            assert self.failures == []
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def let_in(self, clients: int, folder: Path, certificates: Path | None) -> None:
        """Start the clients, one after the other: Hydra composes one configuration at a time."""
        for client in range(clients):
            tls = Tls.read(certificates / f"client-{client}") if certificates else None
            address = f"127.0.0.1:{self.port}"
            made = TrainingClient(
                server=address,
                client=client,
                tls=tls,
                folder=folder / str(client),
                own={},
                build=run_of_member,
            )
            self.start(made.attend)
            here = client + 1
            self.until(lambda here=here: self.experiment.records or self._connected() >= here)

    def _connected(self) -> int:
        hub = self.experiment.transport.hub  # type: ignore[attr-defined]
        return hub.connected_count if hub else 0


@contextmanager
def listening(experiment: Experiment, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A run whose clients have not come yet; it has ended in the end."""
    running, start = Running(experiment), server_listening.start

    def noted(*arguments: object, **options: object) -> tuple[grpc.Server, int]:
        made, running.port = start(*arguments, **options)  # type: ignore[arg-type]
        return made, running.port

    monkeypatch.setattr(server_listening, "start", noted)
    monkeypatch.setattr(server_listening, "HELLO_S", HELLO_S)  # of handshakes
    monkeypatch.setattr(server_listening, "Federation", partial(server.Federation, hello_s=HELLO_S))
    directory.mkdir()
    running.start(lambda: experiment.run(RunDirectory(directory)))
    running.until(lambda: running.port)
    yield running
    for thread in running.threads:
        thread.join(2 * LONG)
        assert not thread.is_alive()
    assert running.failures == []


@contextmanager
def dialled(port: int, credentials: grpc.ChannelCredentials | None) -> Iterator[grpc.Channel]:
    target = f"127.0.0.1:{port}"
    channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    with channel:
        yield channel


def answer(
    port: int, credentials: grpc.ChannelCredentials | None, *messages: pb.FromClient
) -> pb.FromServer | tuple[grpc.StatusCode, str]:
    """What comes first on a stream that says this and then stays open, or how the stream ends."""
    outbox: SimpleQueue[pb.FromClient | None] = SimpleQueue()
    for message in messages:
        outbox.put(message)
    with dialled(port, credentials) as channel:
        stub = federation_pb2_grpc.FederationStub(channel)  # type: ignore[no-untyped-call]
        stream = stub.Attend(iter(outbox.get, None), timeout=LONG)
        try:
            first: pb.FromServer = next(stream)
        except grpc.RpcError as error:
            return error.code(), error.details()  # type: ignore[attr-defined]
        finally:
            outbox.put(None)
            stream.cancel()
        return first


def refusal(port: int, credentials: grpc.ChannelCredentials | None, hello: pb.FromClient) -> str:
    """Why a stream is refused, for good."""
    first = answer(port, credentials, hello)
    assert isinstance(first, pb.FromServer), first
    assert first.WhichOneof("content") == "refusal"
    assert first.refusal.for_good
    return first.refusal.reason


def hello(client: int, *, version: int = VERSION, instance: bytes | None = None) -> pb.FromClient:
    instance = token_bytes(16) if instance is None else instance
    return pb.FromClient(hello=pb.Hello(version=version, client=client, instance=instance))


def closed(port: int, sends: bytes) -> bytes:
    """What comes back on a connection on which this is sent, until it is closed by the other end."""
    came = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=LONG)) as connection:
        connection.sendall(sends)
        try:
            while block := connection.recv(4096):
                came += block
        except ConnectionResetError:
            pass
    return came


def health(port: int, credentials: grpc.ChannelCredentials | None) -> object:
    with dialled(port, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service="fedsplit.Federation"), timeout=LONG).status


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of since the last time."""
    told = [
        record.getMessage()
        for record in caplog.records
        if record.levelname != "INFO" and "gone" not in record.getMessage()
    ]
    caplog.clear()
    assert [line for line in told if "\n" in line] == []
    return told


def test_server_with_tls_turns_strangers_away_and_its_run_is_the_same(
    tiny: Build,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local = ran(tiny("num_clients=2", "engine=sequential"), tmp_path / "local")
    mine = Tls.read(certificates / "client-1").channel_credentials()
    over = ["transport=grpc", "transport.spawn=false", f"transport.tls={certificates / 'server'}"]
    with listening(tiny("num_clients=2", *over), tmp_path / "grpc", monkeypatch) as run:
        authority = (certificates / "ca/certificate.pem").read_bytes()
        stranger = trustme.CA().issue_cert("client", common_name="client 1")
        theirs = grpc.ssl_channel_credentials(
            authority, stranger.private_key_pem.bytes(), stranger.cert_chain_pems[0].bytes()
        )
        for credentials in (None, grpc.ssl_channel_credentials(authority), theirs):
            code, _ = answer(run.port, credentials, hello(1))
            assert code == grpc.StatusCode.UNAVAILABLE
        assert warnings(caplog) == []  # a handshake that fails never gets to Python

        told = "its certificate is not that of client 0, who it says it is"
        assert refusal(run.port, mine, hello(0)) == told
        (line,) = warnings(caplog)
        assert line.startswith(f"refused: {told} (ipv4:127.0.0.1:")

        assert closed(run.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        assert closed(run.port, b"") == b""

        assert health(run.port, mine) == SERVING
        run.let_in(2, tmp_path / "clients", certificates)
    assert_same(local, tmp_path / "grpc")


def test_server_on_loopback_turns_strangers_away_and_its_run_is_the_same(
    tiny: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local = ran(tiny("num_clients=2", "engine=sequential"), tmp_path / "local")
    over = ["transport=grpc", "transport.spawn=false"]
    with listening(tiny("num_clients=2", *over), tmp_path / "grpc", monkeypatch) as run:
        warnings(caplog)
        wrong = {
            "client 2: this run has clients 0 to 1": hello(2),
            f"it speaks version 7 of the protocol, this server {VERSION}": hello(0, version=7),
        }
        for told, message in wrong.items():
            assert refusal(run.port, None, message) == told
            (line,) = warnings(caplog)
            assert line.startswith(f"refused: {told} (ipv4:127.0.0.1:")

        ready = pb.FromClient(ready=pb.Ready(samples=1))
        damaged = {
            "the stream did not begin with hello": ready,
            "the name of an instance must have 16 bytes": hello(0, instance=b"me"),
        }
        for told, message in damaged.items():
            assert answer(run.port, None, message) == (grpc.StatusCode.INVALID_ARGUMENT, told)
            (line,) = warnings(caplog)
            assert line.startswith("closed a stream from ipv4:127.0.0.1:")
            assert line.endswith(f": {told}")

        before = time.monotonic()
        code, _ = answer(run.port, None)  # says nothing
        assert code == grpc.StatusCode.CANCELLED
        assert time.monotonic() - before >= HELLO_S
        run.until(lambda: "ended before" in caplog.text)  # the server may be told later
        (line,) = warnings(caplog)
        assert line.endswith(": the stream ended before its hello")

        assert b"HTTP/2" not in closed(run.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        closed(run.port, b"\x16\x03\x01" + bytes(64))  # the start of TLS
        closed(run.port, b"")  # in the server's own time, which began when it accepted

        assert health(run.port, None) == SERVING
        run.let_in(2, tmp_path / "clients", None)
    assert_same(local, tmp_path / "grpc")
