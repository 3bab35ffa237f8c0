"""A certificate authority of our own, and a bank that speaks TLS to Kafka with its certificates."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from integration.bank import Bank

_NAMES = ("ca.pem", "user.pem", "user.key")


class Authority:
    """A CA, and the folders with what it has issued."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def make_broker(self, folder: Path) -> None:
        """Write what a broker needs (`Configuration.kafka_tls`)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._ca.cert_pem.write_to_path(folder / "ca.pem")
        issued = self._ca.issue_cert("127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = [certificate.bytes() for certificate in issued.cert_chain_pems]
        (folder / "broker.pem").write_bytes(b"".join([text, *chain]))


class Mounted:
    """A mounted Secret: what is named are links, and all change at one moment, as the kubelet does.

    See https://kubernetes.io/docs/concepts/configuration/secret/: `name -> ..data/name`,
    `..data -> ..<time>`.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority
        self._generation = 0
        self.ends = datetime.now(UTC)

    @property
    def settings(self) -> dict[str, str]:
        names = ("CA_FILE", "CERTIFICATE_FILE", "KEY_FILE")
        files = zip(names, _NAMES, strict=True)
        return {f"MICROFIN_KAFKA_{name}": str(self._folder / file) for name, file in files}

    def renew(self, seconds: float = 86_400.0) -> None:
        """Put a new certificate in the place of the one that is there, valid for `seconds`."""
        self._generation += 1
        self.ends = datetime.now(UTC) + timedelta(seconds=seconds)
        issued = self._authority._ca.issue_cert(
            "client@microfin.test",
            not_before=datetime.now(UTC) - timedelta(days=1),
            not_after=self.ends,
        )
        here = self._folder / f"..generation-{self._generation}"
        here.mkdir(parents=True)
        self._authority._ca.cert_pem.write_to_path(here / "ca.pem")
        issued.cert_chain_pems[0].write_to_path(here / "user.pem")
        issued.private_key_pem.write_to_path(here / "user.key")
        link = self._folder / "..data_tmp"
        link.symlink_to(here.name)
        link.rename(self._folder / "..data")
        for name in _NAMES:
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        for old in self._folder.glob("..generation-*"):
            if old != here:
                shutil.rmtree(old)


class TlsBank(Bank):
    """A bank whose processes speak TLS to Kafka; the test itself uses the plain listener."""

    mounts: Sequence[Mounted] = ()

    def environment(self, role: str) -> dict[str, str]:
        environment = super().environment(role)
        if role in ("worker", "api"):
            brokers = self.platform.configuration.brokers
            ports = [self.platform.port_of(f"kafka-{n} tls") for n in range(1, brokers + 1)]
            environment["MICROFIN_KAFKA"] = ",".join(f"127.0.0.1:{port}" for port in ports)
            environment |= self.mounted(role).settings
        return environment

    def mounted(self, role: str) -> Mounted:
        """Return the certificates of the API processes or of the workers."""
        return self.mounts[("worker", "api").index(role)]
