"""Starts the components with data: PostgreSQL, PgBouncer, Kafka and the Redis Cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from microfin_local import kafka, postgres, redis_cluster
from microfin_local.configuration import TOPIC, Configuration
from microfin_local.credentials import Credentials
from microfin_local.database_home import DatabaseHome
from microfin_local.detours import Detours
from microfin_local.environments import DataServices
from microfin_local.kafka import LISTENERS_BY_CLIENT, PLAIN, TLS, Broker, KafkaCluster, Listener
from microfin_local.pgbouncer import PgBouncer
from microfin_local.ports import Ports
from microfin_local.postgres import ARCHIVE, PostgresShard
from microfin_local.redis_cluster import MASTERS, RedisNode, RedisTls
from microfin_local.supervisor import Supervisor
from microfin_local.wait import accepts_connections, wait_until


def lay_out(
    configuration: Configuration,
    ports: Ports,
    detours: Detours,
    credentials: Credentials,
    home: DatabaseHome,
    jars: Path,
) -> DataServices:
    """Choose the ports and folders of the configured components; start nothing."""
    components, state = configuration.components, configuration.state
    shards = [
        PostgresShard(
            shard, ports.choose(f"postgres-{shard}", 5432 + shard),
            home.folder / f"postgres-{shard}", credentials, configuration.tls,
        )
        for shard in range(configuration.shards)
        if "postgres" in components
    ]  # fmt: skip
    pooler = None
    if "pgbouncer" in components:
        folder = home.folder / "pgbouncer"
        port = ports.choose("pgbouncer", 6432)
        pooler = PgBouncer(port, folder, home, credentials, shards, detours, tls=configuration.tls)
        if configuration.archives:
            pooler.add(ARCHIVE)
    cluster = None
    if "kafka" in components:
        brokers = [
            Broker(
                node,
                _listeners(node, ports, detours, tls=bool(configuration.tls)),
                ports.choose(f"kafka-{node} controller", 9191 + node),
                state / f"kafka-{node}",
            )
            for node in range(1, configuration.brokers + 1)
        ]
        cluster = KafkaCluster(brokers, kafka.find_jars(jars), configuration.tls)
    nodes = [
        RedisNode(
            number,
            ports.choose(f"redis-{number}", 7000 + number),
            detours.around(f"redis-{number}", ports.choose(f"redis-{number}", 7000 + number)),
            ports.choose(f"redis-{number} bus", 17000 + number),
            state / f"redis-{number}",
            _redis_tls(number, ports, configuration.tls),
        )
        for number in range(MASTERS * (1 + configuration.redis_replicas))
        if "redis" in components
    ]
    archives = bool(configuration.archives)
    return DataServices(credentials, shards, pooler, cluster, nodes, archives)


def _redis_tls(number: int, ports: Ports, folder: Path | None) -> RedisTls | None:
    if folder is None:
        return None
    return RedisTls(ports.choose(f"redis-{number} tls", 7100 + number), folder)


def _listeners(node: int, ports: Ports, detours: Detours, *, tls: bool) -> tuple[Listener, ...]:
    """Return a broker's listeners: one for all, one per kind of client of a proxy, and TLS."""
    port = ports.choose(f"kafka-{node}", 9091 + node)
    listeners = [Listener(PLAIN, port, port)]
    if detours.wanted:
        for client, name in LISTENERS_BY_CLIENT.items():
            way = f"{client}-kafka-{node}"
            port = ports.choose(f"kafka-{node} {client}", 9291 + node)
            listeners.append(Listener(name, port, detours.around(way, port)))
    if tls:
        port = ports.choose(f"kafka-{node} tls", 9391 + node)
        listeners.append(Listener(TLS, port, port))
    return tuple(listeners)


class DataStarter:
    """Starts the components at once, which needs only as long as the slowest one."""

    def __init__(
        self,
        services: DataServices,
        supervisor: Supervisor,
        configuration: Configuration,
        home: DatabaseHome,
        say: Callable[[str], None],
    ) -> None:
        self._services = services
        self._supervisor = supervisor
        self._configuration = configuration
        self._home = home
        self._say = say

    async def start(self, moved: set[str], migrate: Callable[[], Awaitable[None]]) -> None:
        """Start all components, and migrate as soon as the databases are ready.

        `moved` are the names whose ports differ from those of the last start.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_databases(migrate))
            if self._services.pgbouncer is not None:
                group.create_task(self._start_pgbouncer(self._services.pgbouncer))
            if self._services.kafka is not None:
                group.create_task(self._start_kafka(self._services.kafka))
            if self._services.redis:
                forget = any(name.startswith("redis") for name in moved)
                group.create_task(self._start_redis(self._services.redis, forget=forget))

    def _log(self, name: str) -> Path:
        return self._configuration.logs / f"{name}.log"

    async def _start_databases(self, migrate: Callable[[], Awaitable[None]]) -> None:
        await asyncio.gather(*(self._start_postgres(shard) for shard in self._services.postgres))
        await migrate()

    async def _start_postgres(self, shard: PostgresShard) -> None:
        program = await postgres.prepare(shard, self._home, self._log(shard.name))
        process = await self._supervisor.start(program)
        await wait_until(shard.answers, [process], shard.name)
        await postgres.make_roles(shard)
        if self._services.archives:
            await postgres.make_database(shard, ARCHIVE)
        self._say(f"{shard.name} is ready on port {shard.port}")

    async def _start_pgbouncer(self, pooler: PgBouncer) -> None:
        process = await self._supervisor.start(pooler.program())
        await wait_until(lambda: accepts_connections(pooler.port), [process], pooler.name)
        self._say(f"pgbouncer is ready on port {pooler.port}")

    async def _start_kafka(self, cluster: KafkaCluster) -> None:
        identity = kafka.make_cluster_id(self._configuration.state / "kafka-cluster-id")
        programs = await asyncio.gather(
            *(kafka.prepare(cluster, b, identity, self._log(b.name)) for b in cluster.brokers)
        )
        processes = [await self._supervisor.start(program) for program in programs]
        for broker in cluster.brokers:
            await wait_until(partial(accepts_connections, broker.port), processes, broker.name)
        await wait_until(
            lambda: kafka.make_topic(cluster, TOPIC, self._configuration.workers),
            processes,
            "Kafka",
        )
        self._say(f"kafka is ready on {cluster.bootstrap}")

    async def _start_redis(self, nodes: list[RedisNode], *, forget: bool) -> None:
        replicas = len(nodes) > redis_cluster.MASTERS
        processes = [
            await self._supervisor.start(
                redis_cluster.prepare(node, forget=forget, replicas=replicas)
            )
            for node in nodes
        ]
        for node in nodes:
            await wait_until(partial(redis_cluster.answers, node), processes, node.name)
        if not await redis_cluster.has_layout(nodes):
            await redis_cluster.make_layout(nodes)
            await wait_until(
                lambda: redis_cluster.attach_replicas(nodes), processes, "Redis's replicas"
            )
        await wait_until(lambda: redis_cluster.is_whole(nodes), processes, "The Redis Cluster")
        self._say(f"redis is ready on ports {', '.join(str(node.port) for node in nodes)}")
