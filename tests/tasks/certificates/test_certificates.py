import subprocess
import sys
from pathlib import Path

import pytest

from fedsplit.cli.run import main
from fedsplit.machine.extras import install_command
from fedsplit.tasks.certificates.certificates import Certificates
from fedsplit.transport.grpc.protocol.tls import Tls
from tests.cases import long_but
from tests.conftest import Configure


def test_certificates_are_made_for_each_machine_and_it_is_said_what_goes_where(
    configured: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "certs"
    asked = ("task=certificates", "task.hosts=[server.example,192.0.2.7,::1]", f"task.out={out}")
    config = configured(*asked, "num_clients=3")
    config.task.build(Certificates).run(config, tmp_path / "run")
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/ca: the authority; goes nowhere, and its key.pem is best kept offline",
        f"{out}/server: to the server, server.example, 192.0.2.7, ::1",
        f"{out}/client-0 ... client-2: one to the machine of each client (3 new)",
        "valid for 365 days; each machine needs its own directory and no other",
    ]
    for name in ("server", "client-0", "client-1", "client-2"):
        Tls.read(out / name)
    assert {path.name for path in tmp_path.iterdir()} == {"certs"}
    config = configured(*asked, "task.clients=4")
    config.task.build(Certificates).run(config, tmp_path / "run")
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/client-3: one to the machine of each client (1 new)",
        "valid for 365 days; each machine needs its own directory and no other",
        "5 directories were there already and stay as they are",
    ]


MISTAKES = [
    ([], "task.hosts=[]: must hold at least one: names or IP addresses"),
    (["task.hosts=server"], "task.hosts=server: must be a list, each a text"),
    (["task.hosts=[5]"], "task.hosts=[5]: must be a list, each a text"),
    (["task.hosts=[a_b]"], "task.hosts=a_b: must be names or IP addresses"),
    (["task.hosts=[a]", "task.clients=-1"], "task.clients=-1: must be a whole number, 0 or greater"),
    (["task.hosts=[a]", "task.days=0"], "task.days=0: must be a whole number greater than 0"),
    (["task.hosts=[a]", "task.days=9999"], "task.days=9999: must be at most 3650"),
    (["task.hosts=[a]", "task.out=/dev/null/x"], "task.out=/dev/null/x: cannot be written (Not a directory)"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_certificates_asked_for_wrongly_end_in_one_line_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", "task=certificates", *arguments])
    assert main() == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {message}")
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "needed"),
    long_but(
        [("grpc", "grpcio and protobuf")],
        [("cryptography", "cryptography"), ("grpc", "grpcio and protobuf")],
    ),
)
def test_certificates_without_a_package_name_what_installs_it(
    root: Path, tmp_path: Path, missing: str, needed: str
) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; from fedsplit.cli.run import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "task=certificates", "task.hosts=[server.example]"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"error: task=certificates: needs {needed}: {install_command('grpc')}\n"
    assert (done.returncode, done.stderr) == (2, expected)
    assert list(tmp_path.iterdir()) == []
