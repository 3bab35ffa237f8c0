"""Watching the log's end over a separate connection, because a reader may fail without an error.

A reader that the brokers refuse, or whose brokers have all moved, fetches nothing and raises
nothing. That the log's end has advanced distinguishes it from a log without new records.

An answer to the reader's fetch also says where the log ends. While such answers come, the watch
asks only now and then: a leader that has lost its office may still answer, and knows nothing newer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import aiokafka
import structlog

from microfin.process.deadline import within
from microfin.process.silence import Silence
from microfin_worker.ports import Clock

logger = structlog.get_logger(__name__)

EVERY: Final = 2.0
"""Seconds between two looks. A look asks the broker if the reader's last answer is too old."""

_AGAIN: Final = 1.0  # seconds, while the broker does not answer

READER_ANSWERS: Final = 1.5
"""Seconds that an answer to the reader counts: half a second longer than its fetch may wait."""

UNASKED: Final = EVERY + READER_ANSWERS
"""Seconds after the reader's last answer until the watch has asked, at the latest."""

_WITHIN: Final = 5.0  # seconds
_COUNT_EVERY: Final = 2  # looks, until the topic's partitions are counted again


class LogWatch:
    """Knows where a partition ends, by the reader's answers and by its own requests.

    `reader_answered` returns when (monotonic) the reader's last answer came.
    """

    def __init__(
        self,
        topic_partition: aiokafka.TopicPartition,
        connect: Callable[[], Awaitable[aiokafka.AIOKafkaConsumer]],
        clock: Clock,
        silence: Silence,
        reader_answered: Callable[[], float],
    ) -> None:
        self._topic_partition = topic_partition
        self._connect = connect
        self._clock = clock
        self._silence = silence
        self._reader_answered = reader_answered
        self._inspector: aiokafka.AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.end = 0
        """The offset after the last record, as the broker last reported it; 0 before."""
        self.topic_partitions = 0
        """How many partitions the topic had when the broker was last asked; 0 before."""
        self._until_count = 0

    def start(self) -> None:
        """Begin to ask the broker."""
        self._task = asyncio.create_task(self._ask_for_ever())

    async def stop(self) -> None:
        """Stop asking, and disconnect."""
        if self._task is not None:
            self._task.cancel()
        await self._disconnect()

    async def _ask_for_ever(self) -> None:
        while True:
            answered = await self._look()
            await self._clock.tick(EVERY if answered else _AGAIN)

    async def _look(self) -> bool:
        """Ask the broker, unless the reader knows; return whether it has answered."""
        answered = self._reader_answered()
        self._silence.answered(answered)
        if self._clock.monotonic() - answered < READER_ANSWERS and self._until_count > 0:
            self._until_count -= 1
            return True
        self._silence.ask()
        try:
            self.end = await within(_WITHIN, self._ask(), "Kafka")
        except Exception as error:  # noqa: BLE001 - after any error there is no answer
            logger.warning("the log's broker does not answer", error=repr(error))
            await self._disconnect()
            return False
        self._silence.answered()
        return True

    async def _ask(self) -> int:
        """Ask over the existing connection, or over a new one to the configured servers."""
        if self._inspector is None:
            self._inspector = await self._connect()
        if self._until_count == 0:
            await self._count_partitions(self._inspector)
        self._until_count = (self._until_count or _COUNT_EVERY) - 1
        ends = await self._inspector.end_offsets([self._topic_partition])
        end: int = ends[self._topic_partition]
        return end

    async def _count_partitions(self, inspector: aiokafka.AIOKafkaConsumer) -> None:
        await inspector.topics()  # asks the brokers, because the client's metadata could be old
        partitions = inspector.partitions_for_topic(self._topic_partition.topic) or set()
        self.topic_partitions = len(partitions)

    async def _disconnect(self) -> None:
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            with contextlib.suppress(Exception):
                await within(_WITHIN, inspector.stop())
