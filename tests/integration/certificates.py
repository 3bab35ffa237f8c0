"""A bank that speaks TLS to all servers, by Secrets as the vendors' operators make them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from integration.bank import Bank
from support.certificates import Authority, Secret
from support.kafka_users import give_rights

NAMES = ("127.0.0.1", "localhost")
"""The names in the servers' certificates."""


class Mounted:
    """The Secrets of one kind of process: the brokers' CA, its own user, the other servers' CA."""

    def __init__(self, folder: Path, user: str, authority: Authority) -> None:
        self._user_name = user
        self._authority = authority
        self._brokers_ca = Secret(folder / "kafka-ca")
        self._user = Secret(folder / "user")
        self._servers_ca = Secret(folder / "ca")
        self.ends = datetime.now(UTC)
        self.trust(authority)

    def trust(self, *authorities: Authority) -> None:
        """Believe the servers of these authorities, the newest first, and of no others."""
        new, *old = (it.certificate for it in authorities)
        olds = {f"ca-2026-0{number}-01T00-00-00Z.crt": it for number, it in enumerate(old, 1)}
        self._brokers_ca.put({"ca.crt": new, "ca.password": b"x", **olds})
        self._servers_ca.put({"ca.crt": b"".join([new, *old])})

    def renew(self, seconds: float = 86_400.0, authority: Authority | None = None) -> None:
        """Put a new certificate in the place of the one that is there, valid for `seconds`."""
        authority = authority or self._authority
        issued = authority.issue(self._user_name, seconds=seconds)
        self._user.put({"user.crt": issued.certificate, "user.key": issued.key})
        self.ends = issued.ends

    @property
    def settings(self) -> dict[str, str]:
        return {
            "MICROFIN_KAFKA_CA_FILE": str(self._brokers_ca.folder),
            "MICROFIN_KAFKA_CERTIFICATE_FILE": self._user.path("user.crt"),
            "MICROFIN_KAFKA_KEY_FILE": self._user.path("user.key"),
            "MICROFIN_REDIS_CA_FILE": self.servers_ca,
        }

    @property
    def servers_ca(self) -> str:
        return self._servers_ca.path("ca.crt")


class TlsBank(Bank):
    """A bank whose processes speak TLS to all servers; the test itself uses the plain listeners."""

    mounts: Sequence[Mounted] = ()

    async def __aenter__(self) -> "TlsBank":
        await super().__aenter__()
        await give_rights(self.platform.endpoints.kafka, self.topic)
        return self

    def environment(self, role: str) -> dict[str, str]:
        environment = super().environment(role)
        if role in ("worker", "api"):
            mounted = self.mounted(role)
            port_of, form = self.platform.port_of, self.platform.configuration
            ports = [port_of(f"kafka-{n} tls") for n in range(1, form.brokers + 1)]
            environment["MICROFIN_KAFKA"] = ",".join(f"127.0.0.1:{port}" for port in ports)
            login = f"microfin_{role}"
            plain = [self.platform.postgres_pooled(n, login, self.name) for n in range(self.shards)]
            secure = f"sslmode=verify-full&sslrootcert={mounted.servers_ca}"
            environment["MICROFIN_DATABASES"] = " ".join(
                url.replace("sslmode=disable", secure) for url in plain
            )
            environment["MICROFIN_REDIS"] = f"rediss://localhost:{port_of('redis-0 tls')}"
            environment |= mounted.settings
        return environment

    def mounted(self, role: str) -> Mounted:
        """Return the certificates of the API processes or of the workers."""
        return self.mounts[("worker", "api").index(role)]
