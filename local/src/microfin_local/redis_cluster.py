"""A Redis Cluster: three masters, each with at most one replica. It is a cache without files."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from microfin_local.files import write_atomically
from microfin_local.programs import find_program
from microfin_local.supervised import Program

MASTERS = 3
_SLOTS = 16384

_SETTINGS = """\
bind 127.0.0.1
port {port}
cluster-enabled yes
cluster-port {bus_port}
cluster-announce-port {announced_port}
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-require-full-coverage no
cluster-allow-reads-when-down no
save ""
appendonly no
dir {folder}
daemonize no
maxmemory 128mb
maxmemory-policy volatile-lru
"""
# A node looks ten times a second whether a peer is gone. Where none has a replica, nobody takes
# its place, and twice is often enough: our processes ask each node themselves.
_WITHOUT_REPLICAS = """\
hz 2
"""
# Clients learn names, not addresses, of the nodes, as with the chart.
_TLS_SETTINGS = """\
tls-port {port}
cluster-announce-tls-port {port}
tls-cluster yes
tls-replication yes
tls-auth-clients no
tls-cert-file {folder}/server.crt
tls-key-file {folder}/server.key
tls-ca-cert-file {folder}/ca.pem
cluster-announce-hostname localhost
cluster-preferred-endpoint-type hostname
"""


@dataclass(frozen=True)
class RedisTls:
    """A node's port for TLS, and the folder with its certificates."""

    port: int
    folder: Path


@dataclass(frozen=True)
class RedisNode:
    """One node; the first three are masters when the cluster is made.

    `announced_port` is the port for clients: the node's own port, or a proxy's.
    """

    number: int
    port: int
    announced_port: int
    bus_port: int
    folder: Path
    tls: RedisTls | None = None

    @property
    def name(self) -> str:
        """The process's name."""
        return f"redis-{self.number}"

    @property
    def url(self) -> str:
        """The node's URL."""
        return f"redis://127.0.0.1:{self.announced_port}"


def prepare(node: RedisNode, *, forget: bool, replicas: bool) -> Program:
    """Write a node's settings and return how to run it.

    `forget` drops its cluster's layout; `replicas` says whether the cluster has any.
    """
    node.folder.mkdir(parents=True, exist_ok=True)
    if forget:
        (node.folder / "nodes.conf").unlink(missing_ok=True)
    settings = node.folder / "redis.conf"
    write_atomically(
        settings,
        _SETTINGS.format(
            port=node.port,
            bus_port=node.bus_port,
            announced_port=node.announced_port,
            folder=node.folder,
        )
        + ("" if replicas else _WITHOUT_REPLICAS)
        + (_TLS_SETTINGS.format(port=node.tls.port, folder=node.tls.folder) if node.tls else ""),
    )
    return Program(
        name=node.name,
        arguments=(find_program("redis-server"), str(settings)),
        directory=node.folder,
    )


async def _command(node: RedisNode, *words: str | int) -> object:
    client = Redis(host="127.0.0.1", port=node.port, socket_timeout=5)
    try:
        answer: object = await client.execute_command(*words)  # type: ignore[no-untyped-call]
        return answer
    except RedisConnectionError as error:  # Not an OSError in redis-py.
        raise ConnectionRefusedError(str(error)) from error
    finally:
        await client.aclose()


async def _information(node: RedisNode) -> dict[str, str]:
    """Return CLUSTER INFO, whose form differs between versions of redis-py's callbacks."""
    answer = await _command(node, "CLUSTER INFO")
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    text = answer.decode() if isinstance(answer, bytes) else str(answer)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def answers(node: RedisNode) -> bool:
    """Return whether the node answers commands. Raises OSError if not."""
    await _command(node, "PING")
    return True


async def has_layout(nodes: list[RedisNode]) -> bool:
    """Return whether these nodes already form a cluster."""
    information = await asyncio.gather(*(_information(node) for node in nodes))
    return all(
        facts["cluster_known_nodes"] == str(len(nodes))
        and facts["cluster_slots_assigned"] == str(_SLOTS)
        for facts in information
    )


async def make_layout(nodes: list[RedisNode]) -> None:
    """Spread the slots over the masters and join the nodes, as `redis-cli --cluster` does."""
    for node in nodes:  # An earlier start may have made a cluster of another size.
        await _command(node, "CLUSTER RESET", "HARD")
    masters = nodes[:MASTERS]
    for index, node in enumerate(masters):
        first, last = index * _SLOTS // MASTERS, (index + 1) * _SLOTS // MASTERS - 1
        await _command(node, "CLUSTER ADDSLOTSRANGE", first, last)
    for index, node in enumerate(nodes):
        await _command(node, "CLUSTER SET-CONFIG-EPOCH", index + 1)
    for node in nodes[1:]:
        port = node.tls.port if node.tls else node.port
        await _command(nodes[0], "CLUSTER MEET", "127.0.0.1", port, node.bus_port)


async def attach_replicas(nodes: list[RedisNode]) -> bool:
    """Make the nodes after the third replicas. Return False until they know their masters."""
    for index, node in enumerate(nodes[MASTERS:]):
        master = await _command(nodes[index % MASTERS], "CLUSTER MYID")
        identity = master.decode() if isinstance(master, bytes) else str(master)
        try:
            await _command(node, "CLUSTER REPLICATE", identity)
        except RedisError:
            return False
    return True


async def is_whole(nodes: list[RedisNode]) -> bool:
    """Return whether every node reports that the whole cluster works."""
    information = await asyncio.gather(*(_information(node) for node in nodes))
    return all(
        facts["cluster_state"] == "ok"
        and facts["cluster_slots_ok"] == str(_SLOTS)
        and facts["cluster_known_nodes"] == str(len(nodes))
        for facts in information
    )
