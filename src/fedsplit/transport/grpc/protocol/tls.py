"""Mutual TLS: what one machine needs for it, read from a directory that `task=certificates` made."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedsplit.config.commands import command
from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line, user_path

Host: TypeAlias = str | IPv4Address | IPv6Address

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_LONGEST_NAME = 253  # RFC 1035, without the dot of the root


def is_loopback(host: Host) -> bool:
    """True if a host is this machine alone; a name other than `localhost` is not looked up."""
    return host == "localhost" if isinstance(host, str) else host.is_loopback


def parse_host(text: str) -> Host | None:
    """A DNS name in lower case, or an IP address; None for what is neither.

    Names are those of RFC 1123 in ASCII (`xn--...` for others). One that ends in a number is none: resolvers
    read `127.1` or `0` as addresses. IPv6 addresses come without brackets and without a zone (`%eth0`).
    """
    try:
        address = ip_address(text)
    except ValueError:
        name = text.lower()
        last = name.rpartition(".")[2]
        known = text.isascii() and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None
        return name if known and re.fullmatch("[0-9]+|0x[0-9a-f]*", last) is None else None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


CERTIFICATE, KEY, AUTHORITY = "certificate.pem", "key.pem", "ca.pem"
"""The files of a directory: a certificate, its private key, and the certificate of who issued it."""

_CLIENT = re.compile(rb"urn:fedsplit:client:(0|[1-9][0-9]{0,17})")
_LISTEN = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_SCHEMES = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds", "google-c2p"}
"""Names that gRPC takes for a kind of address, not for a host: `unix:1` is the socket file `1`."""

_ROLES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Tls:
    """A certificate, its private key, and the authority that both ends trust, each as PEM.

    Args:
        source: the directory they were read from.
        setting: the key that named it, for errors.
    """

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    ca: bytes = field(repr=False)
    source: Path
    setting: str = "transport.tls"

    @classmethod
    def read(cls, directory: Path | str, key: str = "transport.tls") -> "Tls":
        """Checked contents of `certificate.pem`, `key.pem` and `ca.pem` of a directory.

        Raises:
            UserError: one of them is missing, cannot be read, has expired or is not yet valid; the private
                key is not that of the certificate; the authority did not issue it.
        """
        source = user_path(directory, key)
        if not source.is_dir():
            raise UserError(key, source, f"a directory that holds {CERTIFICATE}, {KEY} and {AUTHORITY}")
        certificate, private, ca = (content(source / name, key) for name in (CERTIFICATE, KEY, AUTHORITY))
        chain = certificates_in(certificate, source / CERTIFICATE, key)
        public = private_key_in(private, source / KEY, key).public_key()
        authorities = certificates_in(ca, source / AUTHORITY, key)
        if public != chain[0].public_key():
            raise UserError(key, source / KEY, f"is not the private key of {CERTIFICATE} beside it")
        if not _is_chain(chain, authorities):
            raise UserError(key, source / CERTIFICATE, f"was not issued by {AUTHORITY} beside it")
        return cls(certificate, private, ca, source, key)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials of a server that verifies all clients; `UserError` where they are a client's."""
        self._must_be_of("server")
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.ca, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a client that trusts the authority alone; `UserError` where they are a server's."""
        self._must_be_of("client")
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    @property
    def client(self) -> int | None:
        """The client that the certificate was made for; None if for none."""
        certificate = x509.load_pem_x509_certificate(self.certificate)
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        return client_of({"peer_uri": [uri.encode() for uri in uris]})

    def _must_be_of(self, role: str) -> None:
        """A certificate of the other role would be refused too, but in the words of a handshake."""
        certificate = x509.load_pem_x509_certificate(self.certificate)
        try:
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return  # good for anything
        if _ROLES[role] not in usages:
            (other,) = _ROLES.keys() - {role}
            raise UserError(self.setting, self.source, f"is for a {other}, not for a {role}")


def client_of(auth_context: Mapping[str, Iterable[bytes]]) -> int | None:
    """The client that a verified certificate was made for; None if for none, or for more than one.

    Only the URI among the alternative names counts, and only where it is the one URI there is. Of the
    properties that gRPC gives, `peer_uri` alone tells a URI from a DNS name of the same letters.

    Args:
        auth_context: result of `context.auth_context()` of a gRPC call.
    """
    uris = list(auth_context.get("peer_uri", ()))
    found = _CLIENT.fullmatch(uris[0]) if len(uris) == 1 else None
    return int(found[1]) if found else None


def client_uri(client: int) -> str:
    """The alternative name that binds a certificate to a client; see `client_of`."""
    return f"urn:fedsplit:client:{client}"


def require_tls_beyond_loopback(address: str, tls: Tls | None, key: str = "transport.listen") -> None:
    """Refuse an address that other machines have a part in, without TLS.

    A name other than `localhost` is taken for one of the network: it is not looked up.

    Raises:
        UserError: there is no TLS beyond loopback, or it is not `host:port` (a name, an IPv4 address or
            an IPv6 address in brackets; port 0 takes a free one).
    """
    found = _LISTEN.fullmatch(address)
    host = found and parse_host(found["bracketed"] or found["host"] or "")
    bracketed = found is not None and found["bracketed"] is not None
    if not found or host is None or host in _SCHEMES or bracketed != isinstance(host, IPv6Address):
        form = "host:port, as localhost:50051, 0.0.0.0:50051 or [::1]:0 (a free port)"
        raise UserError(key, address, f"must be {form}")
    if int(found["port"]) > 65535:
        raise UserError(key, address, "must end in a port, 0 to 65535")
    if tls is None and not is_loopback(host):
        raise UserError(
            key,
            address,
            "beyond loopback needs transport.tls=...; "
            f"{command('task=certificates', 'task.hosts=[...]')} makes certificates",
        )


def content(path: Path, key: str) -> bytes:
    """Content of a file; `UserError` where it cannot be read."""
    with in_one_line(key, path, "cannot be read"):
        return path.read_bytes()


def certificates_in(pem: bytes, path: Path, key: str) -> list[x509.Certificate]:
    """The certificates of a PEM file; `UserError` where there is none, or one that is not valid now."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UserError(key, path, "holds no certificate in PEM") from error
    now = datetime.now(UTC)
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            raise UserError(key, path, f"expired on {end:%Y-%m-%d %H:%M} UTC")
        if now < start:
            raise UserError(key, path, f"is valid only from {start:%Y-%m-%d %H:%M} UTC; is the clock right?")
    return certificates


def private_key_in(pem: bytes, path: Path, key: str) -> PrivateKeyTypes:
    """The private key of a PEM file; `UserError` where there is none, or one that is encrypted."""
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise UserError(key, path, "is encrypted; give it without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(key, path, "holds no private key in PEM") from error


def _is_chain(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """True if each certificate was issued by the next, and the last by one of the authorities."""
    issuers = [*([issuer] for issuer in chain[1:]), authorities]
    return all(
        any(_issued_directly(certificate, issuer) for issuer in possible)
        for certificate, possible in zip(chain, issuers, strict=True)
    )


def _issued_directly(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
