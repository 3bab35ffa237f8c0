"""Ending holds whose time is over: the worker of their account's partition appends an `expire`.

Beside the batches, so that none waits for it. However many append one, and however often, it takes
effect once: its id follows from the hold (docs/adr/0049-holds.md).
"""

import asyncio
from typing import Final

import structlog

from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command, expiry_of
from microfin_worker.ports import Clock, DueHold, DueHolds, Log, Store, origin
from microfin_worker.status import Status

logger = structlog.get_logger(__name__)

PAGE: Final = 100
"""Holds that are read, and ended, at once."""

PAUSE: Final = 0.25
"""Seconds between two pages: holds that end all at once must not be in everybody's way."""

_BEGIN_ANEW: Final = 600.0  # seconds: a hold that was decided late may lie before the cursor


class HoldEnds:
    """Ends the holds of one partition's accounts. It looks for them every `seconds`.

    Only while the worker works: one that found another log than its own appends nothing to it.
    """

    def __init__(
        self, status: Status, store: Store, log: Log, clock: Clock, seconds: float
    ) -> None:
        self._status = status
        self._partition = status.partition
        self._store = store
        self._log = log
        self._clock = clock
        self._seconds = seconds
        self._after: DueHold | None = None
        self._partition_count = 0
        self._began = clock.monotonic()

    async def run(self) -> None:
        """End what is due, until cancelled. No failure is more than a delay."""
        while True:
            await self._clock.tick(self._seconds)
            try:
                if self._status.ready:
                    await self.end_due()
            except Exception as error:  # noqa: BLE001 - tried again at the next look
                logger.warning("holds end later", error=repr(origin(error)))
                self._begin_anew()

    async def end_due(self) -> None:
        """End all holds whose time is over by now."""
        if self._clock.monotonic() - self._began >= _BEGIN_ANEW:
            self._begin_anew()
        while True:
            due = await self._store.due_holds(self._after, PAGE)
            if self._is_of_another_routing(due):
                continue
            await self._append(due)
            if due.holds:
                self._after = due.holds[-1]
            if len(due.holds) < PAGE:
                return
            await self._clock.sleep(PAUSE)

    def _is_of_another_routing(self, due: DueHolds) -> bool:
        """Return whether accounts came from other partitions: their holds may have been passed."""
        before, self._partition_count = self._partition_count, due.partition_count
        if before == due.partition_count or self._after is None:
            return False
        self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        self._after = None
        self._began = self._clock.monotonic()

    async def _append(self, due: DueHolds) -> None:
        own = [it for it in due.holds if self._owns(it, due.partition_count)]
        await asyncio.gather(*(self._log.append(self._partition, _end_of(it)) for it in own))
        if own:
            logger.debug("holds end", partition=self._partition, holds=len(own))

    def _owns(self, hold: DueHold, partition_count: int) -> bool:
        return partition_of(hold.account, partition_count) == self._partition


def _end_of(hold: DueHold) -> Command:
    return Command(
        kind="expire",
        leg="request",
        operation=expiry_of(hold.operation),
        account=hold.account,
        hold=hold.operation,
    )
