"""Watching the log's end over a separate connection, because a reader may fail without an error.

A reader that the brokers refuse, or whose brokers have all moved, fetches nothing and raises
nothing. That the log's end has advanced distinguishes it from a log without new records.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import aiokafka
import structlog

from microfin.process.deadline import within
from microfin_worker.ports import Clock

logger = structlog.get_logger(__name__)

_EVERY: Final = 1.0  # seconds
_WITHIN: Final = 5.0  # seconds


class LogWatch:
    """Asks the broker every second where a partition ends."""

    def __init__(
        self,
        topic_partition: aiokafka.TopicPartition,
        connect: Callable[[], Awaitable[aiokafka.AIOKafkaConsumer]],
        clock: Clock,
    ) -> None:
        self._topic_partition = topic_partition
        self._connect = connect
        self._clock = clock
        self._inspector: aiokafka.AIOKafkaConsumer | None = None
        self._unanswered_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.end = 0
        """The offset after the last record, as the broker last reported it; 0 before."""

    def start(self) -> None:
        """Begin to ask the broker."""
        self._task = asyncio.create_task(self._ask_for_ever())

    async def stop(self) -> None:
        """Stop asking, and disconnect."""
        if self._task is not None:
            self._task.cancel()
        await self._disconnect()

    def unanswered(self) -> float:
        """Return for how many seconds the broker has not answered; 0 if it does."""
        since = self._unanswered_since
        return 0.0 if since is None else self._clock.monotonic() - since

    async def _ask_for_ever(self) -> None:
        while True:
            asked = self._clock.monotonic()
            try:
                self.end = await within(_WITHIN, self._ask())
            except Exception as error:  # noqa: BLE001 - after any error there is no answer
                if self._unanswered_since is None:
                    self._unanswered_since = asked
                    logger.warning("the log's broker does not answer", error=repr(error))
                await self._disconnect()
            else:
                self._unanswered_since = None
            await self._clock.sleep(_EVERY)

    async def _ask(self) -> int:
        """Ask over the existing connection, or over a new one to the configured servers."""
        if self._inspector is None:
            self._inspector = await self._connect()
        ends = await self._inspector.end_offsets([self._topic_partition])
        end: int = ends[self._topic_partition]
        return end

    async def _disconnect(self) -> None:
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            with contextlib.suppress(Exception):
                await within(_WITHIN, inspector.stop())
