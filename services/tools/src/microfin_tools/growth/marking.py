"""Markers: the end of a partition of the log, confirmed by its leader.

A broker's answer about the end may be old: a broker that was cut off does not know that another one
leads by now. But it cannot acknowledge an append, because that needs all in-sync replicas. So a
growth appends a record to each partition, and cuts behind it. docs/adr/0024-markers-as-cuts.md says
why that record is an operation like any other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import lru_cache
from typing import Final, Protocol

from microfin.kafka.producer import Appended, ProduceUnknown
from microfin.ledger.account_number import check_digit
from microfin.ledger.operation import operation_id
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command

_LONG_PAST: Final = 1
"""A deadline in milliseconds since the Unix epoch: every worker rejects the command as late."""

LogEnds = Callable[[], Awaitable[Mapping[int, int]]]
"""Returns the offset after the last record of each partition of the topic, as a broker says."""


class Producer(Protocol):
    """Appends commands; see `microfin.kafka.producer.CommandProducer`."""

    async def send(self, partition: int, command: Command) -> Appended:
        """Append `command` and return its place, after all in-sync replicas have it."""


class MarkedLog:
    """The commands topic as a growth uses it."""

    def __init__(self, ends: LogEnds, producer: Producer) -> None:
        self._ends = ends
        self._producer = producer

    async def ends(self) -> Mapping[int, int]:
        """Return where each partition ends, as some broker says: not a place to cut."""
        return await self._ends()

    async def mark(
        self, partitions: Collection[int], current: Routing, intended: Routing
    ) -> dict[int, int]:
        """Append a marker to each of `partitions`; return the offsets behind them.

        Every command that was acknowledged before this call is below those offsets. Raises
        `ProduceRefused` and `ProduceUnknown` if a partition could not be marked. There is no
        deadline here: the caller sets one.
        """
        commands = {it: marker(it, current, intended) for it in partitions}
        appended = await asyncio.gather(
            *(self._producer.send(number, command) for number, command in commands.items())
        )
        unplaced = [it.partition for it in appended if it.offset < 0]
        if unplaced:  # The broker accepted it before and no longer knows where.
            raise ProduceUnknown(f"nobody knows where partitions {unplaced} were marked")
        return {it.partition: it.offset + 1 for it in appended}


def marker(partition: int, current: Routing, intended: Routing) -> Command:
    """Return the command that marks `partition` for a growth from `current` to `intended`.

    Its deadline is long past, so that workers of every release reject it as `expired` before any
    other check. Its account belongs to `partition`, and nobody can ever open it. One growth has one
    marker for a partition: however often it is appended, it is decided once.
    """
    account = marker_accounts(current.partition_count)[partition]
    growth = (
        f"growth {current.generation} {current.partition_count}"
        f" {intended.generation} {intended.partition_count}"
    )
    return Command(
        kind="set_state",
        leg="request",
        operation=operation_id("", growth, "set_state", account),
        account=account,
        state="open",
        deadline=_LONG_PAST,
    )


@lru_cache(maxsize=8)
def marker_accounts(partition_count: int) -> list[str]:
    """Return an account number of each partition that begins with 0, unlike any opened one."""
    found: dict[int, str] = {}
    body = 0
    while len(found) < partition_count:
        digits = f"{body:011d}"
        number = digits + check_digit(digits)
        found.setdefault(partition_of(number, partition_count), number)
        body += 1
    return [found[partition] for partition in range(partition_count)]
