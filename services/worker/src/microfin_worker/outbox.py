"""Sending the commands that a batch decided to send on: credits, refunds, forwarded commands.

The rows stay in the database until the broker has acknowledged them. They are sent from memory, in
outbox order, and again after any failure: a repeat has no effect (invariant 4).
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from microfin.ledger.records import OutboxRow
from microfin.ledger.routing import (
    Routing,
    partition_of,
    shard_of_account,
    shard_of_partition,
)
from microfin.process.phase_seconds import seconds_until_appended
from microfin_worker import metrics
from microfin_worker.ports import Clock, Log, OutboxPlace

logger = structlog.get_logger(__name__)

_ROUND: Final = 500  # rows sent before the first acknowledgement is awaited
_PAUSE: Final = 0.2  # seconds before a failed row is sent again
_PRODUCE: Final = metrics.PHASE_SECONDS["produce"]


class Outbox:
    """The rows of one partition that are not yet acknowledged, and the task that sends them."""

    def __init__(self, partition: int, shards: int, log: Log, clock: Clock) -> None:
        self._shard = shard_of_partition(partition, shards)
        self._shards = shards
        self._log = log
        self._clock = clock
        self._waiting: deque[OutboxRow] = deque()
        self._acknowledged: list[OutboxPlace] = []
        # When each row began to wait, by the monotonic clock; the oldest comes first.
        self._since: dict[OutboxPlace, float] = {}
        self._changed = asyncio.Event()
        self._sending = 0
        self.routing = Routing(0, shards)

    def __len__(self) -> int:
        """Return how many rows the broker has not acknowledged."""
        return len(self._waiting) + self._sending

    def oldest_seconds(self) -> float:
        """Return for how long the oldest row that the broker has not acknowledged has waited.

        A row that a claim has read has waited since that claim.
        """
        since = next(iter(self._since.values()), None)
        return 0.0 if since is None else self._clock.monotonic() - since

    def replace_all(self, rows: Iterable[OutboxRow], routing: Routing) -> None:
        """Replace all rows by those that a claim has read."""
        self._waiting = deque(rows)
        self._acknowledged = []
        known, now = self._since, self._clock.monotonic()
        self._since = {place: known.get(place, now) for place in map(_place, self._waiting)}
        self.routing = routing
        self._changed.set()

    def add(self, rows: Iterable[OutboxRow]) -> None:
        """Send `rows`, which have just been committed, after the rows that wait."""
        now = self._clock.monotonic()
        for row in rows:
            self._waiting.append(row)
            self._since[_place(row)] = now
        self._changed.set()

    def acknowledged(self) -> list[OutboxPlace]:
        """Return the rows that the broker has acknowledged and the database still holds."""
        return list(self._acknowledged)

    def deleted(self, places: Sequence[OutboxPlace]) -> None:
        """Forget rows whose deletion has been committed."""
        gone = set(places)
        self._acknowledged = [place for place in self._acknowledged if place not in gone]

    async def run(self) -> None:
        """Send rows as they are added, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                await self._send_round()

    async def _send_round(self) -> None:
        waiting = self._waiting
        rows = [waiting.popleft() for _ in range(min(_ROUND, len(waiting)))]
        self._sending = len(rows)
        results = await asyncio.gather(*map(self._send, rows), return_exceptions=True)
        self._sending = 0
        if waiting is not self._waiting:
            return  # A new claim came in between; its rows, which include these, are sent.
        failed = []
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, BaseException):
                failed.append(row)
            else:
                place = _place(row)
                self._acknowledged.append(place)
                self._since.pop(place, None)
        if failed:
            logger.warning("sending again", rows=len(failed), operation=failed[0].command.operation)
            waiting.extendleft(reversed(failed))
            await self._clock.sleep(_PAUSE)

    async def _send(self, row: OutboxRow) -> None:
        account = row.command.account
        partition = partition_of(account, self.routing.partition_count)
        # Another shard may still have the routing before ours: then its worker forwards.
        own_shard = shard_of_account(account, self._shards) == self._shard
        generation = self.routing.generation if own_shard else 0
        sent, sent_at = self._clock.monotonic(), self._clock.now()
        appended = await self._log.append(partition, replace(row.command, generation=generation))
        took = seconds_until_appended(sent_at + 0.5, appended, self._clock.monotonic() - sent)
        since = self._since.get(_place(row))
        if since is not None:  # otherwise a new claim came in between and did not read this row
            _PRODUCE.observe(sent - since + took)


def _place(row: OutboxRow) -> OutboxPlace:
    return row.offset, row.step
