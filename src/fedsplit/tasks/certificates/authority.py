"""A certificate authority, and the certificates that it issues."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from fedsplit.transport.grpc.protocol.tls import AUTHORITY, CERTIFICATE, KEY

AUTHORITY_DAYS = 3650
"""How long a new authority is valid: what it issues should never outlive it."""

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
            _unsigned(name, name, key.public_key(), now, AUTHORITY_DAYS)
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
            alternative_names: what the certificate is for.
            usage: `serverAuth` or `clientAuth`.
            days: how long it is valid from `now` on.
            now: from when; it is also valid in the hour before.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _unsigned(_name(name), self.certificate.subject, key.public_key(), now, days)
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


def _unsigned(
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
