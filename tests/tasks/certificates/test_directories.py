import fcntl
import os
import shutil
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsplit.errors import UserError
from fedsplit.tasks.certificates import directories
from fedsplit.tasks.certificates.directories import Authority, CertificateDirectories, make_certificates
from fedsplit.transport.grpc.protocol.tls import Tls

FILES = {"certificate.pem", "key.pem", "ca.pem"}
HOSTS = ["Server.Example", "192.0.2.7", "::1"]


def certificate(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "certificate.pem").read_bytes())


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def make(out: Path, *, hosts: list[str] = HOSTS, clients: int = 2, days: int = 30) -> CertificateDirectories:
    return make_certificates(out, hosts=hosts, clients=clients, days=days)


def test_certificate_directories_suffice_for_a_machine_and_only_the_owner_can_read_them(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        assert make(tmp_path / "a/certs") == CertificateDirectories(
            ["ca", "server", "client-0", "client-1"], []
        )
    finally:
        os.umask(before)
    out = tmp_path / "a/certs"
    assert {path.name for path in out.iterdir()} == {"ca", "server", "client-0", "client-1"}
    for directory in out.iterdir():
        files = {path.name for path in directory.iterdir()}
        assert files == (FILES if directory.name != "ca" else FILES - {"ca.pem"})
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "key.pem").stat().st_mode) == 0o600
    for name in ("server", "client-0", "client-1"):
        alone = tmp_path / "elsewhere" / name
        shutil.copytree(out / name, alone)
        assert Tls.read(alone).ca == (out / "ca/certificate.pem").read_bytes()


def test_certificates_say_what_they_are_for(tmp_path: Path) -> None:
    now = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    make_certificates(tmp_path, hosts=HOSTS, clients=12, days=30, now=now)
    authority = certificate(tmp_path / "ca")
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.not_valid_after_utc == now + timedelta(days=3650)
    names = {"server": [x509.DNSName("server.example"), *(x509.IPAddress(ip_address(a)) for a in HOSTS[1:])]}
    names |= {f"client-{n}": [x509.UniformResourceIdentifier(f"urn:fedsplit:client:{n}")] for n in range(12)}
    serials = {authority.serial_number}
    for name, expected in names.items():
        issued = certificate(tmp_path / name)
        issued.verify_directly_issued_by(authority)
        assert isinstance(issued.public_key().curve, ec.SECP256R1)
        assert issued.signature_hash_algorithm.name == "sha256"
        assert issued.not_valid_before_utc == now - timedelta(hours=1)
        assert issued.not_valid_after_utc == now + timedelta(days=30)
        extension = issued.extensions.get_extension_for_class
        assert list(extension(x509.SubjectAlternativeName).value) == expected
        usage = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        assert list(extension(x509.ExtendedKeyUsage).value) == [usage]
        assert (extension(x509.BasicConstraints).critical, extension(x509.BasicConstraints).value.ca) == (
            True,
            False,
        )
        key_usage = extension(x509.KeyUsage).value
        assert (key_usage.digital_signature, key_usage.key_cert_sign, key_usage.crl_sign) == (
            True,
            False,
            False,
        )
        assert extension(x509.AuthorityKeyIdentifier).value.key_identifier == identifier.digest
        own = x509.SubjectKeyIdentifier.from_public_key(issued.public_key())
        assert extension(x509.SubjectKeyIdentifier).value == own
        (common_name,) = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert common_name.value == f"fedsplit {name.replace('-', ' ')}"
        serials.add(issued.serial_number)
    assert len(serials) == 14


def test_making_certificates_again_adds_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    made = make(tmp_path, hosts=[*reversed(HOSTS), HOSTS[0]], clients=4)
    assert made == CertificateDirectories(["client-2", "client-3"], ["ca", "server", "client-0", "client-1"])
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2 * 3
    assert {after[name] for name in after if name.endswith("/ca.pem")} == {before["ca/certificate.pem"]}
    certificate(tmp_path / "client-3").verify_directly_issued_by(certificate(tmp_path / "ca"))
    shutil.rmtree(tmp_path / "server")
    assert make(tmp_path, hosts=["other.example"], clients=0) == CertificateDirectories(["server"], ["ca"])
    assert contents(tmp_path)["server/key.pem"] != before["server/key.pem"]


def test_key_of_the_authority_is_needed_only_to_add_certificates(tmp_path: Path) -> None:
    make(tmp_path)
    offline = tmp_path / "offline"
    (tmp_path / "ca/key.pem").rename(offline)
    before = contents(tmp_path)
    assert make(tmp_path) == CertificateDirectories([], ["ca", "server", "client-0", "client-1"])
    with pytest.raises(UserError) as told:
        make(tmp_path, clients=3)
    assert str(told.value) == (
        f"task.out={tmp_path}/ca/key.pem: is not there, and client-2 needs it; put it back meanwhile"
    )
    assert contents(tmp_path) == before
    offline.rename(tmp_path / "ca/key.pem")
    assert make(tmp_path, clients=3).new == ["client-2"]


@pytest.mark.parametrize(
    ("fails", "whole"),
    [((os, "fsync", 5), ["ca"]), ((Path, "replace", 3), ["ca", "server"])],
    ids=["first file of the server", "folder of a client"],
)
def test_making_certificates_interrupted_leaves_no_half_made_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: tuple[object, str, int], whole: list[str]
) -> None:
    calls = []
    owner, function, number = fails
    really = getattr(owner, function)

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return really(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == whole
    assert make(tmp_path).existing == whole
    for name in ("server", "client-0", "client-1"):
        Tls.read(tmp_path / name)


def test_making_certificates_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    left = tmp_path / f"{directories._PARTIAL}x7"
    left.mkdir()
    (left / "key.pem").write_text("secret")
    (tmp_path / ".mine.partial").mkdir()
    make(tmp_path)
    assert not left.exists()
    assert (tmp_path / ".mine.partial").exists()


def test_full_disk_while_making_certificates_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)$"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_making_certificates_in_two_processes_at_once_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process makes certificates there now"):
        make(tmp_path)
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


NO_HOSTS = (
    "* *.example a_b -a a- a..b a. é 10.0.0.256 127.1 0 0x7f a.0x1 [::1] ::1%lo fe80::1%eth0 0.0.0.0 ::"
)
NO_HOSTS += " 224.0.0.1 a:50051 http://a"


@pytest.mark.parametrize("host", [*NO_HOSTS.split(), "", "a b", "a\n", "a\0", "a" * 64, "a." * 126 + "aa"])
def test_certificate_for_what_is_no_host_is_refused_and_nothing_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError) as told:
        make(tmp_path / "certs", hosts=["server.example", host])
    assert (told.value.key, told.value.value) == ("task.hosts", host)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["a", "localhost", "a-1.b2.example", "xn--bcher-kva.example", "a" * 63])
def test_certificate_of_a_server_names_any_valid_host(tmp_path: Path, host: str) -> None:
    make(tmp_path, hosts=[host], clients=0)
    names = certificate(tmp_path / "server").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName(host)]


def test_certificates_that_are_not_as_asked_for_are_named_and_kept(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "other")
    before = contents(tmp_path)

    def refused(**asked: object) -> str:
        with pytest.raises(UserError) as told:
            make(tmp_path / "one", **{"clients": 3, **asked})
        return str(told.value)

    end = "; take the directory away, and it is made anew"
    own = f"task.out={tmp_path}/one"
    assert refused(hosts=["b.example"]) == f"{own}/server: is for server.example, 192.0.2.7, ::1{end}"
    assert contents(tmp_path) == before
    client = tmp_path / "one/client-0"
    client.rename(tmp_path / "aside")
    shutil.copytree(tmp_path / "one/client-1", client)
    assert refused() == f"{own}/client-0: is for urn:fedsplit:client:1{end}"
    shutil.rmtree(client)
    shutil.copytree(tmp_path / "other/client-0", client)
    assert refused() == f"{own}/client-0: was issued by another authority than ca beside it{end}"
    (client / "key.pem").unlink()
    assert refused() == f"{own}/client-0/key.pem: cannot be read (No such file or directory){end}"
    shutil.rmtree(client)
    shutil.copy(tmp_path / "other/ca/key.pem", tmp_path / "one/ca/key.pem")
    assert refused() == f"{own}/ca/key.pem: is not the private key of certificate.pem beside it"
    shutil.rmtree(tmp_path / "one/ca")
    assert refused() == f"{own}: holds server but not ca, which issued it; put it back"
    shutil.rmtree(tmp_path / "one/server")
    with pytest.raises(UserError, match="holds client-1 but not ca"):
        make(tmp_path / "one", clients=0)


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^task.days=3651: must be at most 3650, the days that the authority is valid$"
    ):
        make(tmp_path / "none", days=3651)
    assert not (tmp_path / "none").exists()
    earlier = datetime.now(UTC) - timedelta(days=3000, minutes=1)
    make_certificates(tmp_path, hosts=HOSTS, clients=0, days=3650, now=earlier)
    with pytest.raises(
        UserError, match=r"^task.days=650: must be at most 649, the days that .*ca/certificate.pem is"
    ):
        make(tmp_path, clients=1, days=650)
    make(tmp_path, clients=1, days=649)
    assert certificate(tmp_path / "client-0").not_valid_after_utc <= (
        certificate(tmp_path / "ca").not_valid_after_utc
    )


def test_expired_certificates_are_named(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(days=40)
    make_certificates(tmp_path, hosts=HOSTS, clients=1, days=30, now=before)
    with pytest.raises(UserError, match=r"server/certificate.pem: expired on .* UTC; take the"):
        make(tmp_path, clients=1)
    make_certificates(tmp_path / "b", hosts=HOSTS, clients=0, days=1, now=before - timedelta(days=3650))
    with pytest.raises(UserError, match=r"ca/certificate.pem: expired on [-0-9]+ [:0-9]+ UTC$"):
        make(tmp_path / "b", clients=1)


def test_key_of_the_authority_is_in_no_text(tmp_path: Path) -> None:
    authority = Authority.new(datetime.now(UTC))
    assert "key" not in repr(authority).lower()
