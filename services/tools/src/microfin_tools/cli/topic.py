"""The commands topic as the command line reads it: its partitions, their offsets and times."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiokafka
import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from microfin.kafka.client import KAFKA, connection_options
from microfin.process.renewed_tls import tls_fault
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot

_CONNECT_TIMEOUT: Final = 15
"""Seconds."""


class Topic(msgspec.Struct, frozen=True):
    """The commands topic. `places` are its partitions as aiokafka names them."""

    administrator: AIOKafkaAdminClient
    consumer: aiokafka.AIOKafkaConsumer
    places: list[TopicPartition]

    async def starts(self) -> dict[int, int]:
        """Return the first offset that each partition keeps."""
        return _by_partition(await self.consumer.beginning_offsets(self.places))

    async def ends(self) -> dict[int, int]:
        """Return the offset after the last record of each partition."""
        return _by_partition(await self.consumer.end_offsets(self.places))

    async def offsets_at(self, time: int) -> dict[int, int | None]:
        """Return each partition's first record at `time` (in milliseconds) or later."""
        found = await self.consumer.offsets_for_times(dict.fromkeys(self.places, time))
        return {place.partition: there.offset if there else None for place, there in found.items()}

    async def delete_below(self, offsets: Mapping[int, int]) -> None:
        """Delete the records below the offset of each partition in `offsets`."""
        await self.administrator.delete_records(
            {
                place: RecordsToDelete(offsets[place.partition])
                for place in self.places
                if place.partition in offsets
            }
        )


@contextlib.asynccontextmanager
async def open_topic(settings: CommonSettings) -> AsyncIterator[Topic]:
    """Give the commands topic. Raises `CouldNot` if Kafka is away or has no such topic."""
    options = connection_options(settings, "microfin-cli")
    administrator = AIOKafkaAdminClient(**options)
    consumer = aiokafka.AIOKafkaConsumer(**options, enable_auto_commit=False)
    try:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await administrator.start()
                await consumer.start()
                (described,) = await administrator.describe_topics([settings.topic])
        except (KafkaError, OSError, TimeoutError) as error:
            raise CouldNot(
                f"Kafka did not answer at {settings.kafka} ({tls_fault(KAFKA) or repr(error)}): is "
                "it running, and is MICROFIN_KAFKA right?"
            ) from error
        numbers = sorted(found["partition"] for found in described["partitions"])
        if not numbers:
            raise CouldNot(f"Kafka has no topic {settings.topic}: is MICROFIN_TOPIC right?")
        places = [TopicPartition(settings.topic, number) for number in numbers]
        consumer.assign(places)
        yield Topic(administrator, consumer, places)
    finally:
        await consumer.stop()
        await administrator.close()


def _by_partition(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in offsets.items()}
