"""Kafka in KRaft mode from its released jars: one broker, or three that are controllers too."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from microfin_local.errors import PlatformError
from microfin_local.files import last_lines, write_atomically
from microfin_local.programs import find_program
from microfin_local.supervised import Program, run_to_end
from microfin_local.wait import accepts_connections

KAFKA_VERSION = "4.3.1"

# The voters are static: their addresses come from this file at every start, so the ports can
# change. When a broker dies, another must lead its partitions within five seconds, the longest time
# that an answer may need. That must hold if the dead broker was the active controller (1 s until
# the others notice, half a second for the election, then a whole session of the brokers), and if a
# connection between brokers is half-open (request.timeout.ms: how long a follower waits for its
# leader; Kafka's default is 30 s).
#
# Only Kafka's own small topics are compacted. The cleaner's table of keys is there from the start,
# by default 128 MiB: half of a broker's memory here. What does not fit waits for its next pass.
_SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name={between_brokers}
log.dirs={data}
auto.create.topics.enable=false
unclean.leader.election.enable=false
num.partitions=1
default.replication.factor={replication}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.coordinator.threads=1
{liveness}controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=500
controller.socket.timeout.ms=3000
request.timeout.ms=2000
replica.lag.time.max.ms=5000
num.network.threads=2
num.io.threads=4
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=8388608
"""
# Nobody takes the place of a broker that is alone: two heartbeats a second are enough. Its session
# stays short: until it has ended, the broker that comes after a killed one may not register. Kafka
# writes a record of metadata twice a second to show how far each node is behind; here is only one.
# These timers were a fifth of what an idle broker does (docs/guide/wake-ups.md).
_ONE_BROKER = """\
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
metadata.max.idle.interval.ms=0
"""
_SEVERAL_BROKERS = """\
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=2000
"""
# The files are read when the broker starts, and when a client sets their names again. The plain
# listeners, of which ANONYMOUS comes, are for brokers and tests.
_TLS_SETTINGS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
ssl.client.auth=required
ssl.allow.dn.changes=true
ssl.allow.san.changes=true
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
"""
_JAVA_OPTIONS = (
    "-Xms96m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=warn",
)


PLAIN = "PLAINTEXT"
#: The listener on which clients need a certificate.
TLS = "TLS"
#: With a proxy between the components, each kind of client has its own listener.
LISTENERS_BY_CLIENT = {"api": "API", "worker": "WORKER", "kafka": "REPLICATION"}


@dataclass(frozen=True)
class Listener:
    """A port that a broker listens on, and the port that clients connect to."""

    name: str
    port: int
    advertised_port: int


@dataclass(frozen=True)
class Broker:
    """One node: broker and controller in one process. Nodes are numbered from 1.

    Clients use the first listener, unless they have their own (a connection through a proxy).
    """

    node: int
    listeners: tuple[Listener, ...]
    controller_port: int
    folder: Path

    @property
    def port(self) -> int:
        """The port for a direct connection."""
        return self.listeners[0].port

    def listener(self, client: str) -> Listener:
        """Return the listener for a client: `api`, `worker`, `kafka` or any other name."""
        name = LISTENERS_BY_CLIENT.get(client)
        return next((it for it in self.listeners if it.name == name), self.listeners[0])

    @property
    def name(self) -> str:
        """The process's name."""
        return f"kafka-{self.node}"


@dataclass(frozen=True)
class KafkaCluster:
    """All brokers, the folder with Kafka's jars, and the one with certificates for TLS."""

    brokers: list[Broker]
    jars: Path
    tls: Path | None = None

    @property
    def bootstrap(self) -> str:
        """The bootstrap servers, separated by commas."""
        return self.bootstrap_of("")

    def bootstrap_of(self, client: str) -> str:
        """Return the bootstrap servers of a client, separated by commas."""
        ports = [broker.listener(client).advertised_port for broker in self.brokers]
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    @property
    def replication(self) -> int:
        """The number of copies of a record."""
        return len(self.brokers)

    @property
    def in_sync(self) -> int:
        """The number of copies that an acknowledgement needs."""
        return 2 if len(self.brokers) > 1 else 1


def find_jars(folder: Path) -> Path:
    """Return the folder with Kafka's jars. Raises PlatformError if they were not fetched."""
    if not (folder / f"kafka_2.13-{KAFKA_VERSION}.jar").exists():
        raise PlatformError(f"Kafka's jars are not in {folder}. Run `make setup`; it fetches them.")
    return folder


def make_cluster_id(path: Path) -> str:
    """Return this platform's cluster id (16 random bytes in base64), kept in a file."""
    if not path.exists():
        write_atomically(path, _random_id())
    return path.read_text().strip()


def _random_id() -> str:
    """Return an id that does not begin with a dash: Kafka's tools would treat it as an option."""
    while True:
        identifier = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        if not identifier.startswith("-"):
            return identifier


async def prepare(cluster: KafkaCluster, broker: Broker, cluster_id: str, log: Path) -> Program:
    """Write a broker's settings, format new storage, and return how to run the broker."""
    broker.folder.mkdir(parents=True, exist_ok=True)
    settings = broker.folder / "server.properties"
    data = broker.folder / "data"
    certificates = _TLS_SETTINGS.format(folder=cluster.tls) if cluster.tls else ""
    write_atomically(
        settings,
        _SETTINGS.format(
            node=broker.node,
            voters=",".join(f"{b.node}@127.0.0.1:{b.controller_port}" for b in cluster.brokers),
            listeners=",".join(f"{it.name}://127.0.0.1:{it.port}" for it in broker.listeners),
            advertised=",".join(
                f"{it.name}://127.0.0.1:{it.advertised_port}" for it in broker.listeners
            ),
            protocols=",".join(
                f"{it.name}:{'SSL' if it.name == TLS else 'PLAINTEXT'}" for it in broker.listeners
            ),
            between_brokers=broker.listener("kafka").name,
            controller_port=broker.controller_port,
            data=data,
            liveness=_SEVERAL_BROKERS if len(cluster.brokers) > 1 else _ONE_BROKER,
            replication=cluster.replication,
            in_sync=cluster.in_sync,
        )
        + certificates,
    )
    java = (find_program("java"), *_JAVA_OPTIONS, "-cp", f"{cluster.jars}/*")
    if not (data / "meta.properties").exists():
        format_storage = Program(
            name=f"format {broker.name}",
            arguments=(
                *(*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"),
                *("-t", cluster_id, "-c", str(settings)),
            ),
            directory=broker.folder,
        )
        code = await run_to_end(format_storage, log)
        if code != 0:
            raise PlatformError(
                f"Formatting Kafka's storage failed (exit code {code}).\n{last_lines(log)}"
            )
    return Program(
        name=broker.name,
        arguments=(*java, "kafka.Kafka", str(settings)),
        directory=broker.folder,
        # The last of several brokers has no quorum any more, and would wait for one when it stops.
        grace_seconds=20 if len(cluster.brokers) == 1 else 5,
    )


async def make_topic(cluster: KafkaCluster, name: str, partitions: int) -> bool:
    """Make a commands topic unless it exists. Return False while the brokers are not ready.

    Records stay until `microfin log trim` removes them, never by age, and have the broker's time
    (docs/reference/wire-format.md).
    """
    if not await accepts_connections(cluster.brokers[0].port):
        return False
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap, request_timeout_ms=5000)
    topic = NewTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=cluster.replication,
        topic_configs={
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
            "max.message.bytes": str(1024 * 1024),
            "min.insync.replicas": str(cluster.in_sync),
            "unclean.leader.election.enable": "false",
        },
    )
    try:
        await admin.start()
        response = await admin.create_topics([topic])
    except KafkaError:
        return False
    finally:
        await admin.close()
    code = response.topic_errors[0][1]
    return code == 0 or for_code(code) is TopicAlreadyExistsError


async def widen_topic(cluster: KafkaCluster, name: str, partitions: int) -> None:
    """Give a topic more partitions; do nothing if it already has that many."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap, request_timeout_ms=5000)
    try:
        await admin.start()
        (described,) = await admin.describe_topics([name])
        if len(described["partitions"]) < partitions:
            await admin.create_partitions({name: NewPartitions(partitions)})
    except KafkaError as error:
        raise PlatformError(f"Kafka did not widen the topic {name}: {error!r}") from error
    finally:
        await admin.close()
