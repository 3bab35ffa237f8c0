"""Keeping the shard's volumes: opening the next one, and summing up those that are full.

Beside the batches and over a connection of its own, so that no batch waits for it and none fails
with it. See docs/adr/0044-volumes.md.
"""

import asyncio
from typing import Final

import structlog

from microfin.postgres.connections import Pool

logger = structlog.get_logger(__name__)

ASK_AFTER: Final = 10_000
"""Outcomes that a worker writes before it asks whether the newest volume is full."""

_PAUSE_SECONDS: Final = 1.0
"""Between two pieces of a summary, so that it takes a small part of the database's time."""

_TURN: Final = "SELECT turn_volume()"
_SUM_UP: Final = "SELECT sum_up_volume()"


class OutcomeCount:
    """Counts the outcomes that a worker writes. `enough` is set after each `ASK_AFTER` of them."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self._since = 0

    def add(self, outcomes: int) -> None:
        """Count some more."""
        self._since += outcomes
        if self._since >= ASK_AFTER:
            self._since = 0
            self.enough.set()


class VolumeKeeper:
    """Keeps the volumes of a shard, together with the keepers of its other partitions: the
    database lets one of them work at a time."""

    def __init__(self, pool: Pool, written: OutcomeCount, pause: float = _PAUSE_SECONDS) -> None:
        self._pool = pool
        self._written = written
        self._pause = pause

    async def run(self) -> None:
        """Work whenever enough was written, until cancelled. No failure is more than a delay."""
        while True:
            await self._written.enough.wait()
            self._written.enough.clear()
            try:
                await self.keep()
            except Exception as error:  # noqa: BLE001 - tried again after as many outcomes
                logger.warning("the volumes wait for the next attempt", error=repr(error))

    async def keep(self) -> None:
        """Open a volume if the newest is full, and sum up what is full and has no summary."""
        volume = await self._ask(_TURN)
        if volume is not None:
            logger.info("opened a volume", volume=volume)
        while True:
            if not await self._ask(_SUM_UP):
                return
            await asyncio.sleep(self._pause)

    async def _ask(self, statement: str) -> object:
        async with self._pool.acquire() as connection, connection.transaction():
            return await connection.fetchval(statement)
