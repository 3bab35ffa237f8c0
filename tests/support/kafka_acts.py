"""What a client may try at Kafka, and whether the broker's authorizer lets it.

As a program, in a pod with the worker's image, it tries everything as several users:

    python kafka_acts.py TOPIC FOLDER ...

A folder has a user's `user.crt` and `user.key`, and the brokers' `ca.crt`. It prints as JSON what
each may, by the folders' names.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NotLeaderForPartitionError, for_code

from microfin.kafka.client import connection_options
from microfin.process.settings import CommonSettings

Options = dict[str, Any]


class Denied(Exception):
    """The broker's authorizer said no."""


def expect(code: int) -> None:
    """Raise `Denied` if `code` says that the authorizer refused."""
    name = for_code(code).__name__
    if "Authorization" in name:
        raise Denied(name)
    assert code == 0, name


@contextlib.asynccontextmanager
async def started(client: Any) -> AsyncIterator[None]:
    """Start a client, and stop it also if it could not start."""
    try:
        await client.start()
        yield
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def administrator(options: Options) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a client for administration."""
    client = AIOKafkaAdminClient(**options)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def reader(options: Options, topic: str, **more: Any) -> Any:
    """Return a consumer of the topic's first partition."""
    consumer = aiokafka.AIOKafkaConsumer(**options, enable_auto_commit=False, **more)
    consumer.assign([aiokafka.TopicPartition(topic, 0)])
    return consumer


async def produce(options: Options, topic: str) -> None:
    producer = aiokafka.AIOKafkaProducer(**options, enable_idempotence=True, acks="all")
    async with started(producer):
        await producer.send_and_wait(topic, b"a command", partition=0)


async def fetch(options: Options, topic: str) -> None:
    consumer = reader(options, topic)
    async with started(consumer):
        await consumer.seek_to_beginning()
        await consumer.getone()


async def see_the_end(options: Options, topic: str) -> None:
    consumer = reader(options, topic)
    async with started(consumer):
        await consumer.end_offsets([aiokafka.TopicPartition(topic, 0)])


async def commit_the_lag(options: Options, topic: str) -> None:
    consumer = reader(options, topic, group_id="microfin-workers")
    async with started(consumer):
        await consumer.commit({aiokafka.TopicPartition(topic, 0): 1})


async def trim(options: Options, topic: str) -> None:
    place = aiokafka.TopicPartition(topic, 0)
    async with administrator(options) as client:
        await client.delete_records({place: RecordsToDelete(1)})


async def make_a_topic(options: Options, topic: str) -> None:
    async with administrator(options) as client:
        made = await client.create_topics([NewTopic(f"{topic}.other", 1, 1)])
        expect(made.topic_errors[0][1])


async def grow_the_topic(options: Options, topic: str) -> None:
    async with administrator(options) as client:
        grown = await client.create_partitions({topic: NewPartitions(2)})
        expect(grown.topic_errors[0][1])


async def change_the_topic(options: Options, topic: str) -> None:
    change = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "1"})
    async with administrator(options) as client:
        [changed] = await client.alter_configs([change])
        expect(changed.resources[0][0])


async def read_another_topic(options: Options, _: str) -> None:
    async with administrator(options) as client:
        [described] = await client.describe_topics(["microfin.commands"])
        expect(described["error_code"])


Act = Callable[[Options, str], Awaitable[None]]
ACTS: Final[dict[str, Act]] = {
    act.__name__: act
    for act in (
        produce, fetch, see_the_end, commit_the_lag, trim,
        make_a_topic, grow_the_topic, change_the_topic, read_another_topic,
    )
}  # fmt: skip


async def may(options: Options, topic: str) -> set[str]:
    """Return the names of all acts that the broker lets a user do, each tried once."""
    return {name for name, act in ACTS.items() if await allowed(act, options, topic)}


async def allowed(act: Act, options: Options, topic: str) -> bool:
    """Return whether the broker lets a user do this."""
    try:
        async with asyncio.timeout(20):
            await act(options, topic)
    except NotLeaderForPartitionError:  # who may not see the topic sees no leader
        return False
    except (KafkaError, Denied) as error:
        if "Authorization" not in repr(error):
            raise
        return False
    return True


async def _main(topic: str, *folders: str) -> None:
    found = {}
    for folder in map(Path, folders):
        settings = CommonSettings(
            kafka_ca_file=str(folder / "ca.crt"),
            kafka_certificate_file=str(folder / "user.crt"),
            kafka_key_file=str(folder / "user.key"),
        )
        found[folder.name] = sorted(await may(connection_options(settings, "test"), topic))
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
