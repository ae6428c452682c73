"""How clients reach a server, and what is told of those that do not."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from fedsplit.recording.ledger import Ledger
from fedsplit.transport.grpc.client.dialling import channel_options
from fedsplit.transport.grpc.server import meeting
from fedsplit.transport.grpc.server import transport as transport_module
from fedsplit.transport.grpc.server.hub import Hub
from fedsplit.transport.grpc.server.spawning import last_words, log_of
from tests.transport.loopback import LONG
from tests.transport.test_wire import _Echo

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A proxy that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_server_on_loopback_is_reached_whatever_proxy_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, nowhere: str, host: str
) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.setenv(name, nowhere)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Echo(),))
        try:
            port = server.add_insecure_port(f"{host}:0")
        except RuntimeError:
            pytest.skip(f"this machine has no {host}")
        server.start()
        try:
            target = f"{host}:{port}"
            with grpc.insecure_channel(target, channel_options(target)) as channel:
                echoed = list(channel.stream_stream("/any/method")(iter([b"abc"]), timeout=LONG))
        finally:
            server.stop(None).wait()
    assert echoed == [b"abc"]


@pytest.mark.parametrize(
    ("server", "past_proxy"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("[::1]:1", True),
        ("192.168.0.1:1", False),
        ("localhost.example.org:1", False),
        ("[fe80::1]:1", False),
    ],
)
def test_only_loopback_is_reached_without_a_proxy(server: str, past_proxy: bool) -> None:
    assert (dict(channel_options(server)).get("grpc.enable_http_proxy") == 0) == past_proxy


def test_terminal_says_which_started_clients_do_not_come_and_what_one_of_them_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(tmp_path, 0)
    log.parent.mkdir()
    log.write_bytes(b"client 0: begun\nclient 0: unavailable, connection refused \xff\n\n")
    monkeypatch.setattr(meeting, "TELL_S", 0.0)

    def tell_away(clients: list[int]) -> None:
        transport_module._tell_away(tmp_path, clients)
        hub.fail("enough")

    hub = Hub(
        run=bytes(16),
        clients=2,
        expectations=None,  # type: ignore[arg-type]
        sample_counts=[0, 0],
        ledger=Ledger(),
        tell_away=tell_away,  # type: ignore[arg-type]
    )
    with pytest.raises(RuntimeError, match="enough"):
        hub.wait_for_all()
    told = "client 0 says: client 0: unavailable, connection refused \ufffd"
    assert capsys.readouterr().err == f"note: waiting for clients 0, 1, started and not here; {told}\n"


@pytest.mark.parametrize("content", [None, b"", b"\n \n"])
def test_client_without_a_word_has_no_last_words(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "client.log").write_bytes(content)
    assert last_words(tmp_path / "client.log") == ""
