"""The worker's ports: all that it touches outside itself, and the types that are exchanged there.

Nothing here knows PostgreSQL or Kafka. `__main__` joins the worker to them; tests and the
simulation join it to stand-ins.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Answer, Decisions, Hold, LegKey, OutboxRow
from microfin.ledger.routing import Routing
from microfin.ledger.wire import Command
from microfin.process.silence import Silence
from microfin.redis.account_cache import CachedAccount

# The log ----------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of the log. `time` is the broker's append time in milliseconds since the epoch."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None


class PartitionMissing(Exception):
    """The log does not have this partition (yet, or any more)."""


class OutOfRange(Exception):
    """The log does not hold the next offset to read."""


class Log(Protocol):
    """One partition of the commands topic to read, and all of them to append to."""

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that the log holds, and the one after the last.

        Raises `PartitionMissing`.
        """

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None if there is none."""

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none arrive within a second.

        Raises `OutOfRange` if the log does not hold the next offset.
        """

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset` over the connection of the last `fetch`, or None if there
        is none. The next `fetch` continues where that one ended."""

    def end(self) -> int:
        """Return the offset after the last record, as far as it is known."""

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition; return when all in-sync replicas have acknowledged.

        Returns the broker's append time in milliseconds since the epoch.
        """

    async def note(self, next_offset: int) -> None:
        """Show lag tools how far this worker is. Best effort."""


# The store --------------------------------------------------------------------------------------

OutboxPlace = tuple[int, int]
"""The `(offset, step)` of an outbox row, unique in its partition."""


class PartitionRow(msgspec.Struct, frozen=True):
    """A partition's row: its last claim (`epoch`), the next offset to decide, and its routing.

    `fingerprint` is of the record before `next_offset`, None before the first decision.
    """

    partition: int
    epoch: int
    next_offset: int
    fingerprint: bytes | None
    routing: Routing


class Claim(msgspec.Struct, frozen=True):
    """A claimed partition: its row, and the commands that it must still send on."""

    row: PartitionRow
    outbox: list[OutboxRow]


class Place(msgspec.Struct, frozen=True):
    """Where a worker is in its partition: the row must still be there when a batch is committed."""

    partition: int
    epoch: int
    next_offset: int
    routing: Routing


class Quarantined(msgspec.Struct, frozen=True):
    """A record set aside, as it came. `time` is milliseconds since the Unix epoch."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    reason: str


class BatchWrite(msgspec.Struct, frozen=True, kw_only=True):
    """All that one batch writes.

    `versions` are the versions that the changed accounts had before. `sent` are outbox rows that
    the broker has acknowledged. The partition advances to `next_offset`; `fingerprint` is of the
    record before it, if there is one.
    """

    decisions: Decisions
    versions: dict[str, int]
    quarantined: Sequence[Quarantined]
    sent: Sequence[OutboxPlace]
    next_offset: int
    fingerprint: bytes | None


class DueHold(msgspec.Struct, frozen=True):
    """A hold whose time is over. `ends` is its end, in milliseconds since the Unix epoch."""

    ends: int
    operation: str
    account: str


class DueHolds(msgspec.Struct, frozen=True):
    """Holds of a shard whose time is over, the earliest first, and its number of partitions."""

    holds: list[DueHold]
    partition_count: int


class Fenced(Exception):
    """Another worker has claimed the partition since."""


class PlaceChanged(Exception):
    """The partition's row is not at the place that the batch was decided from.

    Nothing was written. `Transaction.lock` returns the row as it is now.
    """


class RepeatsFound(Exception):
    """A leg of the batch was decided before, or a number that it opens is in use; the batch was
    decided without looking them up. Nothing was written."""


class StaleAccounts(Exception):
    """An account was not as this worker remembered it. Nothing was written."""


class StoreError(Exception):
    """A failure of the store that the worker knows how to answer. Its cause is the store's own
    error."""


class StoreUnavailable(StoreError):
    """The store could not be reached, or is failing over."""


class DataRefused(StoreError):
    """The store refused the data itself. Nothing was written."""


class WrongStore(StoreError):
    """The store is another shard than the partition's. Nothing was written."""


class StoreNotReady(StoreError):
    """The store holds no ledger yet."""


def origin(error: BaseException) -> BaseException:
    """Return the store's own error behind `error`, or `error`: messages and metrics name it."""
    if isinstance(error, StoreError) and error.__cause__ is not None:
        return error.__cause__
    return error


class Transaction(Protocol):
    """The worker's open transaction. Its methods are called in this order."""

    async def lock(self) -> PartitionRow:
        """Lock the partition's row, and return it."""

    async def known_outcomes(self, keys: Sequence[LegKey]) -> dict[LegKey, Outcome]:
        """Return the outcomes of `keys` that exist, perhaps with other legs of their operations."""

    async def holds(self, ids: Sequence[str]) -> dict[str, Hold]:
        """Return those of the holds `ids` that are open."""

    async def accounts(self, numbers: Sequence[str]) -> dict[str, Account]:
        """Return the accounts of `numbers` that exist."""

    async def write(self, place: Place, write: BatchWrite) -> None:
        """Write the batch and advance the partition; raises what `Store.commit` raises."""


class Store(Protocol):
    """One partition's rows in its shard. Every method may raise a `StoreError`."""

    async def claim(self, held: int | None = None) -> Claim:
        """Raise the epoch, commit, then read the row and the outbox.

        `held` is the epoch of this worker's claim before, if there was one. Raises `Fenced` if
        another claimant came after it.
        """

    async def commit(self, place: Place, write: BatchWrite) -> None:
        """Write and commit a batch, if the row is at `place`.

        Raises `PlaceChanged`, `RepeatsFound`, `StaleAccounts` or `DataRefused`; then nothing was
        written. After any other error it is unknown whether the commit succeeded.
        """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction that commits when the block ends without an error."""

    async def idle_seconds(self) -> float:
        """Return for how long no claimant has touched the partition."""

    async def due_holds(self, after: DueHold | None, limit: int) -> DueHolds:
        """Return at most `limit` holds of the shard whose time is over, those after `after`."""


# Redis and the clock ----------------------------------------------------------------------------


class Replies(Protocol):
    """The way back to the waiting API processes."""

    async def send(self, answers: Sequence[Answer]) -> None:
        """Send answers. Never fails; may lose them."""


class Cache(Protocol):
    """The cache of accounts."""

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache accounts. Never fails; may lose them."""


class Clock(Protocol):
    """Time. The decision core has none; the worker needs it for pauses and for lag."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""

    def now(self) -> int:
        """Return milliseconds since the Unix epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def tick(self, seconds: float) -> None:
        """Wait until the next tick that all timers of these seconds share."""


class Ports(msgspec.Struct, frozen=True):
    """All ports of one worker, and the silence of the parts behind them. `cache` is None where
    nobody reads it.

    Without a `required` part the worker decides nothing; without a `useful` one its answers are
    slower.
    """

    log: Log
    store: Store
    replies: Replies
    cache: Cache | None
    clock: Clock
    required: tuple[Silence, ...] = ()
    useful: tuple[Silence, ...] = ()
