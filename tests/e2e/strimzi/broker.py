"""The broker: its configuration, its certificate, and whom it trusts.

It has the listeners that Strimzi gives a Kafka with one listener `tls`: 9093 for clients, who need
a certificate of the clients' authority, and 9091 for Kafka's own parts, who need one of the
cluster's. What the lab's script for topics needs, a listener without TLS, is reached only from
inside the pod.
"""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from e2e.kubernetes_cluster import get, kubectl, until
from e2e.strimzi import CLUSTER, LABELS, NAMESPACE
from e2e.strimzi.authorities import StoredAuthority
from e2e.strimzi.secrets import put, read, secret
from support.certificates import ORGANIZATION, Authority

SERVICE: Final = f"{CLUSTER}-kafka-bootstrap"
POD: Final = "kafka-0"

_SECRET: Final = f"{CLUSTER}-broker-0"
_OPERATOR: Final = f"{CLUSTER}-entity-user-operator"
_FILES: Final = "/tls"
_MARK: Final = "microfin.test/configuration"
_STORES: Final = {
    "tls": {"keystore": "broker.pem", "truststore": "clients.pem"},
    "replication": {"keystore": "broker.pem", "truststore": "cluster.pem"},
}
_PORTS: Final = {"tcp-replication": 9091, "tcp-tls": 9093}

_SETTINGS: Final = """\
process.roles=broker,controller
node.id=0
controller.quorum.voters=0@localhost:9090
controller.listener.names=CONTROLLER
listeners=TLS://:9093,REPLICATION://:9091,PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9090
advertised.listeners=TLS://{name}:9093,REPLICATION://{address}:9091,PLAINTEXT://127.0.0.1:9092
listener.security.protocol.map=TLS:SSL,REPLICATION:SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=REPLICATION
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:CN={cluster}-kafka,O={organization};User:CN={operator},O={organization}
ssl.client.auth=required
ssl.allow.dn.changes=true
ssl.allow.san.changes=true
{stores}
log.dirs=/data/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


async def configure() -> None:
    """Let the broker be as above; it restarts only if something changed."""
    put(_service(), manager="kubectl")  # the lab's, whose port goes
    address = get(f"service/{SERVICE}", NAMESPACE)["spec"]["clusterIP"]
    if not read(_SECRET):
        write(Trust.load(), renewed=True)
    settings = _SETTINGS.format(
        name=f"{SERVICE}.{NAMESPACE}.svc.cluster.local", address=address, cluster=CLUSTER,
        operator=_OPERATOR, organization=ORGANIZATION,
        stores="\n".join(f"{name}={value}" for name, value in _stores().items()),
    )  # fmt: skip
    mark = hashlib.sha256(settings.encode()).hexdigest()
    put(_configuration(settings), _stateful_set(mark))
    # A broker that is just starting may read the new file without the volume for certificates, and
    # end. A StatefulSet waits for such a pod for ever, and replaces it only if somebody deletes it.
    if mark not in kubectl("-n", NAMESPACE, "get", "pod", POD, "--ignore-not-found", "-o", "json"):
        kubectl("-n", NAMESPACE, "delete", "pod", POD, "--ignore-not-found")
    rollout = ("rollout", "status", "statefulset/kafka", "--timeout=180s")
    await asyncio.to_thread(kubectl, "-n", NAMESPACE, *rollout)


@dataclass(frozen=True)
class Trust:
    """Whom a broker trusts."""

    cluster: StoredAuthority
    clients: StoredAuthority

    @classmethod
    def load(cls) -> Self:
        """Return what is stored."""
        return cls(StoredAuthority.load("cluster"), StoredAuthority.load("clients"))

    def replaced(self) -> Self:
        """Return the trust in new authorities and in these."""
        return type(self)(self.cluster.replaced(), self.clients.replaced())

    def alone(self) -> Self:
        """Return the trust in the new ones only."""
        return type(self)(self.cluster.alone(), self.clients.alone())

    def store(self) -> None:
        """Let clients see it, and the User Operator."""
        self.cluster.store()
        self.clients.store()


def write(trust: Trust, *, renewed: bool) -> None:
    """Put into the broker's Secret whom it trusts, and a new certificate or the one that it has."""
    pair = _issued(trust.cluster.current) if renewed else read(_SECRET)["broker.pem"]
    files = {"clients.pem": trust.clients.trusted, "cluster.pem": trust.cluster.trusted}
    put(secret(_SECRET, {"broker.pem": pair, **files}, labels=LABELS))


def _issued(authority: Authority) -> bytes:
    address = get(f"service/{SERVICE}", NAMESPACE)["spec"]["clusterIP"]
    place = (SERVICE, f"{SERVICE}.{NAMESPACE}", f"{SERVICE}.{NAMESPACE}.svc")
    names = (*place, f"{place[-1]}.cluster.local", address)
    issued = authority.issue(f"{CLUSTER}-kafka", *names, organization=ORGANIZATION)
    return issued.key + issued.certificate


async def reload() -> None:
    """Let the broker use what is in its Secret now, without a restart."""
    wanted = read(_SECRET)
    refresh(NAMESPACE, POD)
    for name, content in wanted.items():
        path = f"{_FILES}/{name}"
        await until(
            f"{path} in the broker's pod",
            lambda path=path, content=content: (  # type: ignore[misc]
                kubectl("-n", NAMESPACE, "exec", POD, "--", "cat", path).encode() == content
            ),
        )
    async with administrator() as client:
        # The same names again, which makes the broker read the files.
        broker = ConfigResource(ConfigResourceType.BROKER, "0", configs=_stores())
        for response in await client.alter_configs([broker]):
            for code, message, *_ in response.resources:
                assert code == 0, message


async def restart() -> None:
    """Let the broker end, and wait until it is back: nobody keeps a connection."""
    before = _restarts()
    kubectl("-n", NAMESPACE, "exec", POD, "--", "bash", "-c", "kill 1")
    await until("the broker's restart", lambda: _restarts() > before)
    ready = ("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=120s")
    await asyncio.to_thread(kubectl, "-n", NAMESPACE, *ready)


def _restarts() -> int:
    count: int = get(f"pod/{POD}", NAMESPACE)["status"]["containerStatuses"][0]["restartCount"]
    return count


def refresh(namespace: str, *pods: str) -> None:
    """Let the kubelet bring Secrets that changed into pods now, and not within a minute or two.

    A pod that changes is looked at again, with its volumes.
    """
    change = f"microfin.test/refreshed={uuid4().hex}"
    kubectl("-n", namespace, "annotate", "pod", *pods, change, "--overwrite")


@contextlib.asynccontextmanager
async def administrator() -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a client that may do everything, as Strimzi's User Operator has one."""
    context = _context()
    address = get(f"service/{SERVICE}", NAMESPACE)["spec"]["clusterIP"]
    client = AIOKafkaAdminClient(
        bootstrap_servers=f"{address}:9091", security_protocol="SSL", ssl_context=context
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def _context() -> ssl.SSLContext:
    authority = StoredAuthority.load("cluster")
    issued = authority.current.issue(_OPERATOR, organization=ORGANIZATION)
    context = ssl.create_default_context(cadata=authority.trusted.decode())
    with TemporaryDirectory() as folder:
        pair = Path(folder, "pair.pem")
        pair.write_bytes(issued.key + issued.certificate)
        context.load_cert_chain(pair)
    return context


def _stores() -> dict[str, str]:
    return {
        f"listener.name.{listener}.ssl.{store}.{field}": value
        for listener, stores in _STORES.items()
        for store, file in stores.items()
        for field, value in (("type", "PEM"), ("location", f"{_FILES}/{file}"))
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": LABELS},
        "spec": {
            "selector": {"app": "kafka"},
            "ports": [{"name": name, "port": port} for name, port in _PORTS.items()],
        },
    }


def _configuration(settings: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kafka", "namespace": NAMESPACE},
        "data": {"server.properties": settings},
    }


def _stateful_set(mark: str) -> dict[str, Any]:
    """Return what the lab's StatefulSet is to have besides."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "kafka", "namespace": NAMESPACE},
        "spec": {
            "serviceName": "kafka",
            "selector": {"matchLabels": {"app": "kafka"}},
            "template": {
                "metadata": {
                    "labels": {"app": "kafka", **LABELS, "strimzi.io/broker-role": "true"},
                    "annotations": {_MARK: mark},
                },
                "spec": {
                    "containers": [
                        {
                            "name": "kafka",
                            "readinessProbe": {"tcpSocket": {"port": 9093}},
                            "volumeMounts": [{"name": "tls", "mountPath": _FILES}],
                        }
                    ],
                    "volumes": [{"name": "tls", "secret": {"secretName": _SECRET}}],
                },
            },
        },
    }
