"""Watching the log's end by a connection of its own: what reads may be dead without a word.

A reader that is turned away, or whose brokers are all elsewhere by now, fetches nothing and raises
nothing. What the brokers say tells it from a quiet log.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import aiokafka
import structlog

from microfin.process.deadline import within
from microfin_worker.edges import Clock

logger = structlog.get_logger(__name__)

_EVERY: Final = 1.0  # seconds
_WITHIN: Final = 5.0  # seconds


class LogWatch:
    """Asks the broker every second where a partition ends."""

    def __init__(
        self,
        place: aiokafka.TopicPartition,
        connect: Callable[[], Awaitable[aiokafka.AIOKafkaConsumer]],
        clock: Clock,
    ) -> None:
        self._place = place
        self._connect = connect
        self._clock = clock
        self._inspector: aiokafka.AIOKafkaConsumer | None = None
        self._unanswered_since: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self.end = 0
        """The offset after the last record, as the broker told last; 0 before."""

    def start(self) -> None:
        """Begin to ask."""
        self._asking = asyncio.create_task(self._ask_for_ever())

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
        await self._disconnect()

    def unanswered(self) -> float:
        """Return for how many seconds the broker has not answered; 0 where it does."""
        since = self._unanswered_since
        return 0.0 if since is None else self._clock.monotonic() - since

    async def _ask_for_ever(self) -> None:
        while True:
            asked = self._clock.monotonic()
            try:
                self.end = await within(_WITHIN, self._ask())
            except Exception as error:  # noqa: BLE001 - whatever it is, that was no answer
                if self._unanswered_since is None:
                    self._unanswered_since = asked
                    logger.warning("the log's broker does not answer", error=repr(error))
                await self._disconnect()
            else:
                self._unanswered_since = None
            await self._clock.sleep(_EVERY)

    async def _ask(self) -> int:
        """Ask by the connection that there is, or by a new one from the configured servers."""
        if self._inspector is None:
            self._inspector = await self._connect()
        ends = await self._inspector.end_offsets([self._place])
        end: int = ends[self._place]
        return end

    async def _disconnect(self) -> None:
        inspector, self._inspector = self._inspector, None
        if inspector is not None:
            with contextlib.suppress(Exception):
                await within(_WITHIN, inspector.stop())
