"""Certificate authorities of our own, whose certificates have the form of the vendors' ones.

Strimzi, CloudNativePG, cert-manager and Helm's `genSignedCert` write what Python 3.13 demands of a
certificate: a CA says so in a critical extension, has a key usage and a subject key identifier; a
certificate that it signs names the CA's key (authority key identifier) and its own names.
"""

import ipaddress
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID

ORGANIZATION = "io.strimzi"
"""What Strimzi writes into the certificates of its CAs and of Kafka's own parts."""

_DAY = 86_400.0


class Issued:
    """A certificate and its key, both PEM."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key
        self.certificate = certificate.public_bytes(Encoding.PEM)
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.ends = certificate.not_valid_after_utc

    def pkcs12(self, password: str) -> bytes:
        """Return both as a store for Java."""
        encryption = BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(
            None, self._key, self._certificate, None, encryption
        )


class Authority:
    """A CA."""

    def __init__(self, name: str = "cluster-ca v0", seconds: float = 365 * _DAY) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, ORGANIZATION)
        builder = _builder(subject, subject, key, seconds)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.add_extension(
            _usage(key_cert_sign=True, crl_sign=True), critical=True
        ).sign(key, hashes.SHA256())
        self._use(certificate, key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Self:
        """Return the CA that was stored as PEM."""
        authority = cls.__new__(cls)
        loaded = load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        authority._use(x509.load_pem_x509_certificate(certificate), loaded)
        return authority

    def _use(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key
        self.certificate = certificate.public_bytes(Encoding.PEM)
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.ends = certificate.not_valid_after_utc

    def issue(
        self,
        name: str,
        *names: str,
        seconds: float = 30 * _DAY,
        strict: bool = True,
        organization: str = "",
    ) -> Issued:
        """Return a certificate of `CN=name` for the DNS names and addresses `names`.

        `seconds` is how long it is valid from now on, negative for one that has expired. Without
        `strict` it lacks what Python 3.13 demands.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, organization)
        builder = _builder(subject, self._certificate.subject, key, seconds)
        if strict:
            identifier = self._certificate.extensions.get_extension_for_class(
                x509.SubjectKeyIdentifier
            ).value
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
                critical=False,
            )
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        ).add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(it) for it in names]), critical=False
            )
        return Issued(builder.sign(self._key, hashes.SHA256()), key)


def _subject(name: str, organization: str) -> x509.Name:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(names)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, seconds: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(seconds=seconds))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Secret:
    """A mounted Secret: what is named are links, and all change at one moment, as the kubelet does.

    See https://kubernetes.io/docs/concepts/configuration/secret/: `name -> ..data/name`,
    `..data -> ..<time>`.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder
        self._generation = 0
        self.put(files or {})

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def put(self, files: Mapping[str, bytes]) -> None:
        """Let the Secret hold these files and no others."""
        self._generation += 1
        here = self.folder / f"..generation-{self._generation}"
        here.mkdir(parents=True)
        for name, content in files.items():
            (here / name).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(here.name)
        link.rename(self.folder / "..data")
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for path in self.folder.iterdir():
            if not path.name.startswith("..") and path.name not in files:
                path.unlink()
        for old in self.folder.glob("..generation-*"):
            if old != here:
                shutil.rmtree(old)


def write_servers(folder: Path, issued: Issued, trusted: Sequence[Authority]) -> None:
    """Write what the servers of a platform need (`Configuration.tls`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(b"".join(it.certificate for it in trusted))
    (folder / "broker.pem").write_bytes(issued.key + issued.certificate)
    (folder / "server.crt").write_bytes(issued.certificate)
    (folder / "server.key").write_bytes(issued.key)
