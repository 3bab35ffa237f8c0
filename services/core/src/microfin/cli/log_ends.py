"""The log's end offsets for the auditor, asked for only where a transfer is unmatched."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from microfin.kafka_client import connection_options
from microfin.settings import CommonSettings


class LogEndsAsked:
    """Returns the end offset of each partition of the commands topic; None: nobody knows."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings

    async def __call__(self) -> dict[int, int] | None:
        """Ask the brokers."""
        options = connection_options(self._settings, "microfin-cli")
        consumer = AIOKafkaConsumer(**options, enable_auto_commit=False)
        try:
            await consumer.start()
            numbers = consumer.partitions_for_topic(self._settings.topic) or await _fetched(
                consumer, self._settings.topic
            )
            places = [TopicPartition(self._settings.topic, number) for number in sorted(numbers)]
            ends = await consumer.end_offsets(places)
        except (KafkaError, OSError, TimeoutError):
            return None
        finally:
            await consumer.stop()
        return {place.partition: end for place, end in ends.items()}


async def _fetched(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer.topics()
    return set(consumer.partitions_for_topic(topic) or ())
