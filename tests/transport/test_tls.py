import logging
import shutil
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsplit.errors import UserError
from fedsplit.tasks.certificates.directories import Authority, make_certificates
from fedsplit.transport.grpc.protocol.tls import Tls, client_of, require_tls_beyond_loopback
from tests.transport.loopback import call, served


def raw_channel(directory: Path) -> grpc.ChannelCredentials:
    """What `Tls.channel_credentials` makes, without any of its checks."""
    names = ("ca.pem", "key.pem", "certificate.pem")
    return grpc.ssl_channel_credentials(*((directory / name).read_bytes() for name in names))


def refused(port: int, credentials: grpc.ChannelCredentials | None, host: str = "127.0.0.1") -> None:
    with pytest.raises(grpc.RpcError) as told:
        call(port, credentials, host)
    assert told.value.code() == grpc.StatusCode.UNAVAILABLE


def test_server_reads_the_id_of_a_client_from_its_certificate(certificates: Path) -> None:
    with served(Tls.read(certificates / "server").server_credentials()) as server:
        for client in (3, 0, 2):
            credentials = Tls.read(certificates / f"client-{client}").channel_credentials()
            assert call(server.port, credentials) == b"cba"
        assert server.callers == [3, 0, 2]


def test_server_refuses_clients_without_its_authoritys_certificate(
    certificates: Path, tmp_path: Path
) -> None:
    ca = (certificates / "ca/certificate.pem").read_bytes()
    stranger = trustme.CA()
    theirs = stranger.issue_cert("127.0.0.1", common_name="fedsplit client 1")
    now = datetime.now(UTC)
    authority = Authority(
        x509.load_pem_x509_certificate(ca),
        load_pem_private_key((certificates / "ca/key.pem").read_bytes(), None),  # type: ignore[arg-type]
    )
    name = [x509.UniformResourceIdentifier("urn:fedsplit:client:1")]
    client = ExtendedKeyUsageOID.CLIENT_AUTH
    expired = authority.issue("client 1", name, client, 30, now - timedelta(days=31))
    future = authority.issue("client 1", name, client, 30, now + timedelta(days=1))
    with served(Tls.read(certificates / "server").server_credentials()) as server:
        refused(server.port, grpc.ssl_channel_credentials(ca))
        refused(
            server.port,
            grpc.ssl_channel_credentials(
                ca, theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes()
            ),
        )
        for files in (expired, future):
            refused(
                server.port,
                grpc.ssl_channel_credentials(ca, files["key.pem"], files["certificate.pem"]),
            )
        refused(server.port, raw_channel(certificates / "server"))
        refused(server.port, None)
        assert call(server.port, raw_channel(certificates / "client-1")) == b"cba"
        assert server.callers == [1]


def test_client_refuses_a_server_that_is_not_its_server(certificates: Path) -> None:
    tls = Tls.read(certificates / "client-1")
    ours, mine = tls.channel_credentials(), certificates / "client-0"
    key, chain = ((mine / name).read_bytes() for name in ("key.pem", "certificate.pem"))
    another_client = grpc.ssl_server_credentials([(key, chain)], tls.ca, require_client_auth=True)
    theirs = trustme.CA().issue_cert("127.0.0.1")
    pair = (theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes())
    for credentials in (another_client, grpc.ssl_server_credentials([pair], tls.ca, True)):
        with served(credentials) as server:
            refused(server.port, ours)
            assert server.callers == []
    with served(Tls.read(certificates / "server").server_credentials()) as server:
        refused(server.port, ours, host="localhost")  # an address of the server, but not one of its names
        assert call(server.port, ours) == b"cba"


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


@pytest.mark.parametrize(
    ("names", "client"),
    [
        ([URI("urn:fedsplit:client:17"), DNS("urn:fedsplit:client:5")], 17),
        ([URI("urn:fedsplit:client:1"), URI("urn:fedsplit:client:2")], None),
        ([URI("urn:fedsplit:client:1"), URI("https://example")], None),
        ([DNS("urn:fedsplit:client:1")], None),
        ([x509.RFC822Name("urn:fedsplit:client:1")], None),
        ([URI("urn:fedsplit:client:1/2")], None),
        ([URI("urn:fedsplit:client:-1")], None),
        ([URI("urn:fedsplit:client:01")], None),
        ([URI("xurn:fedsplit:client:1")], None),
    ],
    ids=str,
)
def test_certificate_names_its_client_only_by_its_one_uri(
    certificates: Path, names: list[x509.GeneralName], client: int | None
) -> None:
    tls = Tls.read(certificates / "server")
    key = load_pem_private_key((certificates / "ca/key.pem").read_bytes(), None)
    authority = Authority(x509.load_pem_x509_certificate(tls.ca), key)  # type: ignore[arg-type]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    files = authority.issue("urn:fedsplit:client:9", names, usage, 1, datetime.now(UTC))
    with served(tls.server_credentials()) as server:
        call(server.port, grpc.ssl_channel_credentials(tls.ca, files["key.pem"], files["certificate.pem"]))
        assert server.callers == [client]


@pytest.mark.parametrize(
    "uris",
    [[], [""], *([f"urn:fedsplit:client:{number}"] for number in ("", "1\n", "1\0", "٣", "9" * 5000))],
    ids=lambda uris: str(uris)[:40],
)
def test_certificate_with_another_uri_names_no_client(uris: list[str]) -> None:
    names = {"x509_common_name": [b"urn:fedsplit:client:1"], "peer_dns": [b"urn:fedsplit:client:1"]}
    assert client_of({**names, "peer_uri": [uri.encode() for uri in uris]}) is None
    assert client_of({**names, "peer_uri": [b"urn:fedsplit:client:40"]}) == 40
    assert client_of({}) is None


def test_tls_directory_serves_only_the_purpose_of_its_certificate(certificates: Path) -> None:
    with pytest.raises(UserError) as told:
        Tls.read(certificates / "client-0", key="transport.tls").server_credentials()
    assert str(told.value) == f"transport.tls={certificates}/client-0: is for a client, not for a server"
    with pytest.raises(UserError, match="server: is for a server, not for a client"):
        Tls.read(certificates / "server").channel_credentials()


def test_tls_accepts_certificates_of_other_makers(tmp_path: Path) -> None:
    root = trustme.CA()
    between = root.create_child_ca()
    for name, issuer in (("plain", root), ("behind", between)):
        issued = issuer.issue_cert("127.0.0.1")
        directory = tmp_path / name
        directory.mkdir()
        issued.private_key_pem.write_to_path(directory / "key.pem")
        for part in issued.cert_chain_pems:
            part.write_to_path(directory / "certificate.pem", append=True)
        trustme.CA().cert_pem.write_to_path(directory / "ca.pem")
        root.cert_pem.write_to_path(directory / "ca.pem", append=True)
        tls = Tls.read(directory)
        with served(tls.server_credentials()) as server:
            assert call(server.port, tls.channel_credentials()) == b"cba"
            assert server.callers == [None]


def test_tls_directory_that_is_damaged_is_refused_by_file(certificates: Path, tmp_path: Path) -> None:
    directory, setting = tmp_path / "tls", "client.tls"

    def told(name: str, content: bytes | None) -> str:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(certificates / "client-0", directory)
        (directory / name).unlink()
        if content is not None:
            (directory / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            Tls.read(directory, key=setting)
        assert error.value.key == setting
        return str(error.value).removeprefix(f"{setting}={directory}/")

    for name in ("certificate.pem", "key.pem", "ca.pem"):
        assert told(name, None) == f"{name}: cannot be read (No such file or directory)"
        what = "private key" if name == "key.pem" else "certificate"
        for content in (b"", b"\xff\0", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            assert told(name, content) == f"{name}: holds no {what} in PEM"
    other = certificates / "client-1"
    mismatch = "key.pem: is not the private key of certificate.pem beside it"
    assert told("key.pem", (other / "key.pem").read_bytes()) == mismatch
    assert told("certificate.pem", (other / "certificate.pem").read_bytes()) == mismatch
    another_kind = ed25519.Ed25519PrivateKey.generate()
    pem = (Encoding.PEM, PrivateFormat.PKCS8)
    locked = another_kind.private_bytes(*pem, BestAvailableEncryption(b"secret"))
    assert told("key.pem", locked) == "key.pem: is encrypted; give it without a password"
    elsewhere = trustme.CA().cert_pem.bytes()
    not_issued = "certificate.pem: was not issued by ca.pem beside it"
    assert told("ca.pem", elsewhere) == not_issued
    own = (certificates / "client-0/certificate.pem").read_bytes()
    assert told("ca.pem", own) == not_issued
    with pytest.raises(UserError, match=r"nowhere: a directory that holds certificate.pem, key.pem and ca"):
        Tls.read(tmp_path / "nowhere")
    (directory / "ca.pem").unlink()
    (directory / "ca.pem").mkdir()
    with pytest.raises(UserError, match=r"ca.pem: cannot be read \(Is a directory\)"):
        Tls.read(directory)


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (-31, r"certificate.pem: expired on 2\d+-\d\d-\d\d \d\d:\d\d UTC"),
        (1, r"certificate.pem: is valid only from .* UTC; is the clock right\?"),
    ],
)
def test_certificate_outside_its_validity_is_refused(tmp_path: Path, shift: int, message: str) -> None:
    now = datetime.now(UTC) + timedelta(days=shift)
    make_certificates(tmp_path, hosts=["a"], clients=1, days=30, now=now)
    with pytest.raises(UserError, match=message):
        Tls.read(tmp_path / "client-0")


def test_expired_authority_is_refused(tmp_path: Path, certificates: Path) -> None:
    old = Authority.new(datetime.now(UTC) - timedelta(days=4000))
    usage, name = ExtendedKeyUsageOID.CLIENT_AUTH, [URI("urn:fedsplit:client:0")]
    for file, content in old.issue("client 0", name, usage, 30, datetime.now(UTC)).items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=r"ca.pem: expired on"):
        Tls.read(tmp_path)


def test_private_key_of_tls_is_in_no_text(
    certificates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tls = Tls.read(certificates / "client-0")
    secret = tls.key.decode().splitlines()[1][-20:]
    assert secret not in f"{tls!r} {tls} {vars(tls).keys()}"
    assert "PRIVATE" not in repr(tls)
    directory = tmp_path / "damaged"
    shutil.copytree(certificates / "client-0", directory)
    (directory / "key.pem").write_bytes(tls.key.replace(b"END PRIVATE", b"END PUBLIC"))
    with pytest.raises(UserError) as told:
        Tls.read(directory)
    assert secret not in "".join(traceback.format_exception(told.value))
    assert secret not in caplog.text


LOOPBACK = ["127.0.0.1:0", "127.9.8.7:65535", "[::1]:0", "localhost:50051", "LocalHost:1"]
BEYOND = [
    "0.0.0.0:50051",
    "[::]:0",
    "192.0.2.7:1",
    "[2001:db8::1]:1",
    "server.example:1",
    "localhost.example:1",
]
NONSENSE = "localhost localhost: localhost:x localhost:-1 localhost:65536 localhost:000001 localhost:٣ :1 0:1"
NONSENSE += (
    " ::1:1 [::1] [::1]: [localhost]:1 [127.0.0.1]:1 []:1 [::1%lo]:1 127.1:1 *:1 a_b:1 http://a:1 dns:1"
)
NONSENSE += " dns:///a:1 ipv4:127.0.0.1:1 127.0.0.1:1,0.0.0.0:1 unix:/tmp/socket unix:1 unix:///a:1 : xds:1"


@pytest.mark.parametrize("listen", LOOPBACK)
def test_address_on_loopback_needs_no_tls(certificates: Path, listen: str) -> None:
    require_tls_beyond_loopback(listen, None)
    require_tls_beyond_loopback(listen, Tls.read(certificates / "server"))


@pytest.mark.parametrize("listen", BEYOND)
def test_address_beyond_loopback_needs_tls(certificates: Path, listen: str) -> None:
    with pytest.raises(UserError) as told:
        require_tls_beyond_loopback(listen, None)
    assert str(told.value) == (
        f"transport.listen={listen}: beyond loopback needs transport.tls=...; "
        "python main.py task=certificates 'task.hosts=[...]' makes certificates"
    )
    require_tls_beyond_loopback(listen, Tls.read(certificates / "server"))


@pytest.mark.parametrize("listen", [*NONSENSE.split(), "", "localhost:1\n", "localhost: 1"])
def test_text_that_is_no_address_is_refused_with_and_without_tls(certificates: Path, listen: str) -> None:
    for tls in (None, Tls.read(certificates / "server")):
        with pytest.raises(UserError) as told:
            require_tls_beyond_loopback(listen, tls)
        assert (told.value.key, told.value.value) == ("transport.listen", listen)
        assert "must " in told.value.allowed
