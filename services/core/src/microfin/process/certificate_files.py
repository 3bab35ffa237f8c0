"""Reading the files of TLS: which there are, whether they changed, when their certificates end."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

Signature = tuple[tuple[str, int, int, int], ...]
"""Changes with the files."""

# What `ssl.create_default_context` sets from Python 3.13 on: certificates have the form of RFC
# 5280, and each of the trusted ones is an anchor, so that an intermediate CA can be trusted alone.
# It is said here, so that a bank accepts the same certificates on every Python.
_RULES: Final = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


class TlsFiles(msgspec.Struct, frozen=True):
    """How to speak TLS to one kind of server.

    `server` is its name in sentences and metrics. `authority` is a file with the certificates of
    the trusted authorities, or a folder: then those in all its files `*.crt`; empty for the
    authorities that the system trusts. `certificate` and `key` are this client's own; empty for
    none. `verify` says whether the server's certificate is verified at all, `check_name` whether
    its name is, too. `protocols` are those that ALPN offers.
    """

    server: str
    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
    check_name: bool = True
    protocols: tuple[str, ...] = ()

    def authorities(self) -> list[Path]:
        """Return the files with the trusted authorities. Raises OSError where there are none.

        During the replacement of its CA, Strimzi keeps the old one beside the new one, in a file of
        another name: servers show certificates of both.
        """
        if not self.authority:
            return []
        path = Path(self.authority)
        if not path.is_dir():
            return [path]
        files = sorted(path.glob("*.crt"))
        if not files:
            raise FileNotFoundError(f"{path} has no file *.crt with a certificate of an authority")
        return files

    def signature(self) -> Signature:
        """Return a value that changes with the files. It follows links: the kubelet changes those.

        Raises OSError where a file is missing.
        """
        own = [Path(name) for name in (self.certificate, self.key) if name]
        found = ((str(path), path.stat()) for path in self.authorities() + own)
        return tuple((path, it.st_ino, it.st_mtime_ns, it.st_size) for path, it in found)

    def load(self) -> ssl.SSLContext:
        """Return a context with the files as they are now. Raises OSError, such as SSLError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.authority:
            context.load_default_certs()
        for file in self.authorities():
            context.load_verify_locations(file)
        context.verify_flags |= _RULES
        context.check_hostname = self.verify and self.check_name
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None)
        if self.protocols:
            context.set_alpn_protocols(list(self.protocols))
        return context

    def ends(self) -> dict[tuple[str, str], float]:
        """Return when the certificates end: by (role, file), in seconds since the Unix epoch.

        The role is `authority` or `client`. Of several certificates in one file the last end
        counts for an authority (an old one may stand beside its successor), the first end for a
        client (a chain holds only as long as each of its certificates).
        """
        ends = {("authority", str(file)): max(_ends(file)) for file in self.authorities()}
        if self.certificate:
            ends["client", self.certificate] = min(_ends(Path(self.certificate)))
        return ends


def _ends(file: Path) -> list[float]:
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise OSError(f"{file} holds no certificate that can be read: {error}") from error
    return [it.not_valid_after_utc.timestamp() for it in found]


def readable(moment: float) -> str:
    """Return a moment (in seconds since the Unix epoch) as people write it, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
