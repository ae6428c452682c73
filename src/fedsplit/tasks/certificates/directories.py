"""A certificate authority, what it issues, and the directories for authority, server and clients."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.transport.grpc.protocol.tls import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    Host,
    Tls,
    certificates_in,
    client_uri,
    content,
    parse_host,
    private_key_in,
)

AUTHORITY_DAYS = 3650
"""Days that a new authority is valid: its certificates must not outlive it."""

_CLOCKS_APART = timedelta(hours=1)  # a certificate is used at once, also where the clock is a little behind
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True, repr=False)
class Authority:
    """A certificate authority: its own certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, now: datetime) -> Self:
        """An authority that no one knows yet, valid from `now` on for `AUTHORITY_DAYS`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("certificate authority")
        certificate = (
            _certificate_builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
            .sign(key, SHA256())
        )
        return cls(certificate, key)

    @property
    def files(self) -> dict[str, bytes]:
        """Certificate and private key, by the names of their files."""
        return {CERTIFICATE: self.certificate.public_bytes(Encoding.PEM), KEY: _pem(self.key)}

    def issue(
        self,
        name: str,
        alternative_names: Sequence[x509.GeneralName],
        usage: ObjectIdentifier,
        days: int,
        now: datetime,
    ) -> dict[str, bytes]:
        """Issue a certificate: the files that one machine needs, by name.

        Args:
            alternative_names: names that the certificate is for.
            usage: `serverAuth` or `clientAuth`.
            days: number of days that it is valid from `now` on.
            now: time from which it is valid; it also is in the hour before.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _certificate_builder(_name(name), self.certificate.subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, SHA256())
        )
        return {
            CERTIFICATE: certificate.public_bytes(Encoding.PEM),
            KEY: _pem(key),
            AUTHORITY: self.certificate.public_bytes(Encoding.PEM),
        }


def _certificate_builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(what: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedsplit {what}")])


def _key_usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


CA, SERVER = "ca", "server"
"""Names of directories; a client's is `client-<its id>`."""

_PARTIAL = ".fedsplit-certificates-"


@dataclass(frozen=True)
class CertificateDirectories:
    """Names of directories: those that were made, and those that were there and stayed as they were."""

    new: list[str]
    existing: list[str]


def make_certificates(
    out: Path, *, hosts: Sequence[str], clients: int, days: int, now: datetime | None = None
) -> CertificateDirectories:
    """Make `ca/`, `server/` and `client-0/` to `client-<clients - 1>/` under `out`, those that are not there.

    Each appears whole or not at all, and what is there is never written over.

    Args:
        out: made if it is not there.
        hosts: names and addresses by which clients reach the server; its certificate is for no others.
        days: number of days that certificates of server and clients are valid.
        now: time from which certificates are valid; they also are in the hour before.

    Raises:
        UserError: an argument cannot be; what is there is damaged, has expired, or is for other hosts; the
            authority's private key is needed and not there; a directory cannot be written.
    """
    now = now or datetime.now(UTC)
    wanted = {SERVER: _server_names(hosts)} | {
        f"client-{client}": [x509.UniformResourceIdentifier(client_uri(client))] for client in range(clients)
    }
    if days > AUTHORITY_DAYS:
        raise UserError(
            "task.days", days, f"must be at most {AUTHORITY_DAYS}, the days that the authority is valid"
        )
    with in_one_line("task.out", out, "cannot be written"):
        out.mkdir(parents=True, exist_ok=True)
        with _alone_in(out):
            return _make_missing(out, wanted, days, now)


def _make_missing(
    out: Path, wanted: Mapping[str, Sequence[x509.GeneralName]], days: int, now: datetime
) -> CertificateDirectories:
    kept = [name for name in wanted if (out / name).exists()]
    missing = [name for name in wanted if name not in kept]
    new_authority = not (out / CA).exists()
    if new_authority:
        issued = [*kept, *(path.name for path in sorted(out.glob("client-*")))]
        if issued:
            raise UserError("task.out", out, f"holds {issued[0]} but not {CA}, which issued it; put it back")
        authority = Authority.new(now)
        _write(out / CA, authority.files)
    else:
        path = out / CA / CERTIFICATE
        certificate = certificates_in(content(path, "task.out"), path, "task.out")[0]
        for name in kept:
            _check_kept(out / name, wanted[name], certificate)
        if not missing:
            return CertificateDirectories([], [CA, *kept])
        authority = Authority(certificate, _kept_key(out / CA, certificate, missing[0]))
        left = (certificate.not_valid_after_utc - now).days
        if days > left:
            raise UserError("task.days", days, f"must be at most {left}, the days that {path} is still valid")
    for name in missing:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if name == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        _write(out / name, authority.issue(name.replace("-", " "), wanted[name], usage, days, now))
    return (
        CertificateDirectories([CA, *missing], [])
        if new_authority
        else CertificateDirectories(missing, [CA, *kept])
    )


def _server_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Names of hosts in a server's certificate, each once."""
    allowed = "names or IP addresses by which clients reach the server, as [server.example,192.0.2.7]"
    if not hosts:
        raise UserError("task.hosts", "[]", f"must hold at least one: {allowed}")
    names: dict[Host, x509.GeneralName] = {}
    for text in hosts:
        host = parse_host(text)
        if host is None or (not isinstance(host, str) and (host.is_unspecified or host.is_multicast)):
            raise UserError("task.hosts", text, f"must be {allowed}")
        names[host] = x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host)
    return list(names.values())


def _kept_key(directory: Path, certificate: x509.Certificate, needed_by: str) -> ec.EllipticCurvePrivateKey:
    path = directory / KEY
    if not path.exists():
        raise UserError("task.out", path, f"is not there, and {needed_by} needs it; put it back meanwhile")
    key = private_key_in(content(path, "task.out"), path, "task.out")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UserError("task.out", path, f"is not the private key of {CERTIFICATE} beside it")
    return key


def _check_kept(directory: Path, names: Sequence[x509.GeneralName], authority: x509.Certificate) -> None:
    """Refuse what is there but not what would be made, for it is not written over."""
    anew = "take the directory away, and it is made anew"
    try:
        tls = Tls.read(directory, "task.out")
    except UserError as error:
        raise UserError(error.key, error.value, f"{error.allowed}; {anew}") from error
    if x509.load_pem_x509_certificate(tls.ca) != authority:
        raise UserError("task.out", directory, f"was issued by another authority than {CA} beside it; {anew}")
    extensions = x509.load_pem_x509_certificate(tls.certificate).extensions
    try:
        found = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        found = []
    if set(found) != set(names):
        of = ", ".join(str(name.value) for name in found) or "no one"
        raise UserError("task.out", directory, f"is for {of}; {anew}")


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """No other process makes certificates here meanwhile; what a killed one left half-made is removed."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("task.out", directory, "another process makes certificates there now") from error
        for partial in directory.glob(f"{_PARTIAL}*"):
            shutil.rmtree(partial)
        yield
    finally:
        os.close(descriptor)


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory that only its owner can enter, whole or not at all."""
    with appearing(directory, beside=f"{_PARTIAL}{directory.name}", durable=True) as partial:
        partial.mkdir(0o700)
        for name, data in files.items():
            mode = 0o600 if name == KEY else 0o644
            with open(os.open(partial / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
