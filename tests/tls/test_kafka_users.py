"""What each Kafka user of the chart microfin-data may do, by a broker's own authorizer.

Each user comes with a certificate as Strimzi writes it, and has the ACLs of its KafkaUser. The
operator has no user: Strimzi makes topics for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiokafka
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NotLeaderForPartitionError, for_code

from microfin.kafka.client import connection_options
from microfin.process.settings import CommonSettings
from support.certificates import Secret
from support.kafka_users import give_rights, users
from tls.servers import Servers

TOPIC: Final = "tls.commands"
PLACE: Final = aiokafka.TopicPartition(TOPIC, 0)
Options = dict[str, Any]


class Denied(Exception):
    """The broker's authorizer said no."""


def expect(code: int) -> None:
    """Raise `Denied` if `code` says that the authorizer refused."""
    name = for_code(code).__name__
    if "Authorization" in name:
        raise Denied(name)
    assert code == 0, name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def topic(servers: Servers) -> str:
    platform = servers.platform
    await platform.create_topic(TOPIC, 1)
    await give_rights(platform.endpoints.kafka, TOPIC)
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=platform.endpoints.kafka)
    async with producer:
        await producer.send_and_wait(TOPIC, b"first", partition=0)
    return TOPIC


@contextlib.asynccontextmanager
async def started(client: Any) -> AsyncIterator[None]:
    """Start a client, and stop it also if it could not start."""
    try:
        await client.start()
        yield
    finally:
        await client.stop()


async def produce(options: Options) -> None:
    producer = aiokafka.AIOKafkaProducer(**options, enable_idempotence=True, acks="all")
    async with started(producer):
        await producer.send_and_wait(TOPIC, b"a command", partition=0)


async def fetch(options: Options) -> None:
    consumer = aiokafka.AIOKafkaConsumer(**options, enable_auto_commit=False)
    consumer.assign([PLACE])
    async with started(consumer):
        await consumer.seek_to_beginning(PLACE)
        await consumer.getone(PLACE)


async def see_the_end(options: Options) -> None:
    consumer = aiokafka.AIOKafkaConsumer(**options, enable_auto_commit=False)
    consumer.assign([PLACE])
    async with started(consumer):
        await consumer.end_offsets([PLACE])


async def commit_the_lag(options: Options) -> None:
    consumer = aiokafka.AIOKafkaConsumer(
        **options, enable_auto_commit=False, group_id="microfin-workers"
    )
    consumer.assign([PLACE])
    async with started(consumer):
        await consumer.commit({PLACE: 1})


async def trim(options: Options) -> None:
    async with Administrator(options) as administrator:
        await administrator.delete_records({PLACE: RecordsToDelete(1)})


async def make_a_topic(options: Options) -> None:
    async with Administrator(options) as administrator:
        made = await administrator.create_topics([NewTopic("tls.other", 1, 1)])
        expect(made.topic_errors[0][1])


async def grow_the_topic(options: Options) -> None:
    async with Administrator(options) as administrator:
        grown = await administrator.create_partitions({TOPIC: NewPartitions(2)})
        expect(grown.topic_errors[0][1])


async def change_the_topic(options: Options) -> None:
    change = ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs={"retention.ms": "1"})
    async with Administrator(options) as administrator:
        [changed] = await administrator.alter_configs([change])
        expect(changed.resources[0][0])


async def read_another_topic(options: Options) -> None:
    async with Administrator(options) as administrator:
        [described] = await administrator.describe_topics(["microfin.commands"])
        expect(described["error_code"])


class Administrator(AIOKafkaAdminClient):
    """The client as a context manager."""

    def __init__(self, options: Options) -> None:
        super().__init__(**options)

    async def __aenter__(self) -> "Administrator":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


Act = Callable[[Options], Awaitable[None]]
ACTS: Final[tuple[Act, ...]] = (
    produce, fetch, see_the_end, commit_the_lag, trim,
    make_a_topic, grow_the_topic, change_the_topic, read_another_topic,
)  # fmt: skip
RIGHTS: Final[dict[str, Act]] = {
    "Write": produce,
    "Read": fetch,
    "Describe": see_the_end,
    "Delete": trim,
}
MAY: Final = {
    user.name: {RIGHTS[operation] for operation in user.operations}
    | ({commit_the_lag} if user.group else set())
    for user in users()
}


@pytest.fixture
def options(
    request: pytest.FixtureRequest, servers: Servers, topic: str, tmp_path: Path
) -> Options:
    """How a user of the chart connects."""
    issued = servers.authority.issue(f"microfin-{request.param}")
    mounted = Secret(
        tmp_path / "user",
        {
            "ca.crt": servers.authority.certificate,
            "user.crt": issued.certificate,
            "user.key": issued.key,
        },
    )
    settings = CommonSettings(
        kafka=f"127.0.0.1:{servers.platform.port_of('kafka-1 tls')}",
        kafka_ca_file=mounted.path("ca.crt"),
        kafka_certificate_file=mounted.path("user.crt"),
        kafka_key_file=mounted.path("user.key"),
    )
    return connection_options(settings, "test")


async def allowed(act: Act, options: Options) -> bool:
    """Return whether the broker lets a user do this."""
    try:
        async with asyncio.timeout(20):
            await act(options)
    except NotLeaderForPartitionError:  # who may not see the topic sees no leader
        return False
    except (KafkaError, Denied) as error:
        if "Authorization" not in repr(error):
            raise
        return False
    return True


def test_commands_come_from_few_and_records_are_deleted_by_one() -> None:
    def who(act: Act) -> set[str]:
        return {name for name, acts in MAY.items() if act in acts}

    assert who(produce) == {"api", "worker", "administrator"}
    assert who(commit_the_lag) == {"worker"}
    assert len(who(trim)) == 1
    assert not who(trim) & {"api", "worker", "audit"}


@pytest.mark.parametrize("options", MAY, indirect=True)
async def test_each_user_may_do_its_own_work_and_nothing_else(
    options: Options, request: pytest.FixtureRequest
) -> None:
    user = request.node.callspec.params["options"]
    may = set()
    for act in ACTS:
        if await allowed(act, options):
            may.add(act)
    assert may == MAY[user]


@pytest.mark.parametrize("options", ["stranger"], indirect=True)
async def test_a_user_without_rights_may_do_nothing(options: Options) -> None:
    assert not [act for act in ACTS if await allowed(act, options)]
