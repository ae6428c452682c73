"""The command line of runs over a network: one clear line for every mistake, and nothing left behind."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsplit.cli.run import main
from fedsplit.machine.extras import install_command
from tests.command_line import refusal

RUN = ("num_clients=3", "dataset.max_train=60", "dataset.max_test=20", "transport=grpc")
WAITS = (*RUN, "transport.spawn=false")
JOIN = ("task=client", "transport.server=127.0.0.1:{free}")

MISTAKES = [
    (
        (*WAITS, "transport.tls=no"),
        "transport.tls=no: a directory that holds certificate.pem, key",
    ),
    (
        (*WAITS, "transport.tls={certs}"),
        "transport.tls={certs}/certificate.pem: cannot be read (No such",
    ),
    (
        (*WAITS, "transport.tls={certs}/client-0"),
        "transport.tls={certs}/client-0: is for a client",
    ),
    ((*RUN, "transport.tls={certs}/server"), "transport.tls={certs}/server: is for clients that dial in: "),
    (
        (*RUN, "transport.listen=0.0.0.0:{free}"),
        "transport.listen=0.0.0.0:{free}: beyond loopback needs",
    ),
    ((*RUN, "transport.listen=127.0.0.1"), "transport.listen=127.0.0.1: must be host:port"),
    (
        (*RUN, "transport.listen=127.0.0.1:99999"),
        "transport.listen=127.0.0.1:99999: must end in a port, 0",
    ),
    (
        (*RUN, "transport.listen=127.0.0.1:{taken}"),
        "transport.listen=127.0.0.1:{taken}: cannot be listened at (Address already in use)",
    ),
    (
        (*WAITS, "transport.listen=192.0.2.1:0", "transport.tls={certs}/server"),
        "transport.listen=192.0.2.1:0: cannot be listened at (Cannot assign requested address)",
    ),
    ((*RUN, "transport.min_clients=4"), "transport.min_clients=4: must be at most 3, the number of clients"),
    ((*RUN, "transport.min_clients=0"), "transport.min_clients=0: must be a whole number greater"),
    ((*RUN, "transport.round_deadline_s=-1"), "transport.round_deadline_s=-1: must be a number greater than"),
    (
        (*RUN, "transport.server=localhost:1"),
        "transport.server=localhost:1: is of task=client; a server says",
    ),
    ((*RUN, "engine=vectorized"), "engine=vectorized: must be auto or sequential: each client has a process"),
    ((*RUN, "transport.port=3"), "transport.port=3: no such key; known: spawn, listen, server, tls, min_cl"),
    (("transport=quic",), "transport=quic: no such choice; allowed: grpc, local"),
    (("task=client",), "transport.server=null: must be the server's address and port, for a client"),
    (JOIN, "client.id=null: must be a whole number from 0 where no certificate says it"),
    ((*JOIN, "client.id=-1"), "client.id=-1: must be a whole number, 0 or greater"),
    (("task=client", "client.id=0", "transport=local"), "transport=local: must be grpc for a client"),
    ((*JOIN, "client.id=0", "dataset=cifar10"), "dataset=cifar10: is the server's to say"),
    (
        (*JOIN, "client.id=0", "num_clients=3"),
        "num_clients=3: is the server's to say; beside this task may be given task, ",
    ),
    ((*JOIN, "transport.tls=no"), "transport.tls=no: a directory that holds certificate.pem, key"),
    ((*JOIN, "transport.tls={certs}/server"), "transport.tls={certs}/server: is for a server, not for a cl"),
    (
        (*JOIN, "transport.tls={certs}/client-1", "client.id=0"),
        "client.id=0: the certificate is of client 1",
    ),
    (
        ("task=client", "transport.server=127.0.0.1", "client.id=0"),
        "transport.server=127.0.0.1: must be host:port",
    ),
    (
        ("task=client", "transport.server=127.0.0.1:0", "client.id=0"),
        "transport.server=127.0.0.1:0: must end in the port that the server listens at",
    ),
    (
        ("task=client", "transport.server=127.0.0.1:65536", "client.id=0"),
        "transport.server=127.0.0.1:65536: must end in a port",
    ),
    (
        ("task=client", "transport.server=192.0.2.1:50051", "client.id=0"),
        "transport.server=192.0.2.1:50051: beyond loopback needs transport.tls=",
    ),
    (("-m", *JOIN, "client.id=0,1"), "task=client: must not be swept: it leaves no run behind"),
]


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


LIKE_OTHERS = (
    "transport.listen=127.0.0.1:99999",
    "transport.listen=192.0.2.1:0",
    "transport.min_clients=0",
    "dataset=cifar10",
    "transport.server=127.0.0.1",
    "transport.server=127.0.0.1:65536",
)
"""Parts of mistakes that the same lines of code notice as others."""


def _cases(*, commands: bool) -> list[Any]:
    """Mistakes that only a command finds, or those of one configuration."""
    return [
        pytest.param(
            arguments,
            message,
            marks=pytest.mark.long if set(arguments) & set(LIKE_OTHERS) else (),
            id=" ".join(arguments),
        )
        for arguments, message in MISTAKES
        if commands == (": no such " in message or "server's to say" in message or arguments[0] == "-m")
    ]


@pytest.mark.parametrize(("arguments", "message"), _cases(commands=False))
def test_mistake_of_a_run_over_a_network_is_refused_in_one_line_and_nothing_written(
    certificates: Path, taken: int, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    def filled(text: str) -> str:
        return text.format(certs=certificates, taken=taken, free=1)

    told = refusal(*map(filled, arguments), directory=tmp_path / "run")
    assert told.startswith(filled(message))
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "message"), _cases(commands=True))
def test_mistake_on_the_command_line_ends_with_one_clear_line_and_nothing_written(
    *,
    certificates: Path,
    taken: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    def filled(text: str) -> str:
        return text.format(certs=certificates, taken=taken, free=1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *map(filled, arguments)])
    assert main() == 2
    told = capfd.readouterr()
    assert told.err.startswith(f"error: {filled(message)}")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


WITHOUT_EXTRA = [
    ("transport=grpc", "grpc"),
    ("task=client", "google.protobuf"),
    ("task=certificates task.hosts=[a]", "cryptography"),
]
WITHOUT = """
import os, sys
from fedsplit.cli.run import main
for arguments, package in {cases}:
    if os.fork() == 0:
        sys.modules[package] = None
        sys.argv[1:] = arguments.split()
        code = main()
        print(code, flush=True)
        os._exit(0)
    os.wait()
"""
"""A process that has imported nothing but the run command forks one for each command."""


def needed(package: str) -> str:
    """What brings a package, as pip names it."""
    return "cryptography" if package == "cryptography" else "grpcio and protobuf"


@pytest.mark.long  # making certificates without it is tried in every run
def test_command_without_a_package_of_the_extra_says_in_one_line_what_to_install(
    root: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(cases=WITHOUT_EXTRA)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{root / 'src'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2\n" * len(WITHOUT_EXTRA)), done.stderr
    assert done.stderr.splitlines() == [
        f"error: {arguments.partition(' ')[0]}: needs {needed(package)}: {install_command('grpc')}"
        for arguments, package in WITHOUT_EXTRA
    ]
    assert list(tmp_path.iterdir()) == []
