"""The servers of a platform that all speak TLS: changing their certificates while they run."""

import asyncio
import contextlib
import signal
import socket
import ssl
import struct
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis.asyncio import Redis

from microfin_local.platform import Platform
from microfin_local.postgres import TLS_FILES
from support.certificates import Authority, Issued, write_servers
from support.waiting import until

NAMES: Final = ("127.0.0.1", "localhost")

_PROBES: Final = 4  # a broker's two network threads take turns, and read the files one by one


class Servers:
    """All servers show one certificate, and the brokers believe the clients of `trusted`."""

    platform: Platform

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.trusted = [self.authority]
        self._write(self.right())

    def right(self) -> Issued:
        """Return a certificate that every client believes."""
        return self.authority.issue("server", *NAMES)

    def _write(self, issued: Issued) -> None:
        write_servers(self.folder, issued, self.trusted)

    async def show(self, issued: Issued) -> None:
        """Let all servers show this certificate to new connections."""
        self._write(issued)
        platform = self.platform
        services = platform._started_services()
        pooler = services.pgbouncer
        assert pooler is not None
        platform._home.copy(self.folder, services.postgres[0].data, TLS_FILES)
        pooler.write_settings()
        for name in ("postgres-0", pooler.name):
            platform.process(name).signal(signal.SIGHUP)
        for node in services.redis:
            async with Redis(host="127.0.0.1", port=node.port) as client:
                await client.config_set("tls-cert-file", str(self.folder / "server.crt"))
        await self._show_by_kafka()
        await self._until_shown(issued)

    async def _show_by_kafka(self) -> None:
        """Set the files' names again, which makes the broker read them."""
        administrator = AIOKafkaAdminClient(bootstrap_servers=self.platform.endpoints.kafka)
        await administrator.start()
        try:
            names = {
                f"listener.name.tls.ssl.{store}.location": str(self.folder / file)
                for store, file in (("keystore", "broker.pem"), ("truststore", "ca.pem"))
            }
            names |= {
                f"listener.name.tls.ssl.{store}.type": "PEM" for store in ("keystore", "truststore")
            }
            broker = ConfigResource(ConfigResourceType.BROKER, "1", configs=names)
            for response in await administrator.alter_configs([broker]):
                for code, message, *_ in response.resources:
                    assert code == 0, message
        finally:
            await administrator.close()

    async def _until_shown(self, issued: Issued) -> None:
        wanted = ssl.PEM_cert_to_DER_cert(issued.certificate.decode())
        port_of = self.platform.port_of
        names = ["kafka-1 tls", *(f"redis-{number} tls" for number in range(3))]
        for name in (*names, "postgres-0", "pgbouncer"):

            async def ask(port: int = port_of(name)) -> bool:
                shown = [await asyncio.to_thread(_shown, port) for _ in range(_PROBES)]
                return set(shown) == {wanted}

            await until(f"{name} shows the certificate", ask)


def _shown(port: int) -> bytes | None:
    """Return the certificate that a server shows; to a server of PostgreSQL one says so first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for begins in (b"", struct.pack("!ii", 8, 80877103)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as raw:
            if begins:
                raw.sendall(begins)
                raw.recv(1)
            with context.wrap_socket(raw) as connection:
                return connection.getpeercert(binary_form=True)
    return None
