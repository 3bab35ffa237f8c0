"""The worker's edges: all that it touches outside itself, so that a simulation can stand in."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from microfin.ledger.decision import Account, Answer, LegKey
from microfin.ledger.operation import Outcome
from microfin.ledger.wire import Command
from microfin.redis.account_cache import CachedAccount
from microfin_worker.batch_statement import BatchWrite, OutboxPlace, Place
from microfin_worker.postgres_store import Claim, PartitionRow


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of the log. `time` is the broker's append time in milliseconds since the epoch."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None


class PartitionMissing(Exception):
    """The log has no such partition (yet, or any more)."""


class OutOfRange(Exception):
    """The log does not hold the offset that was to be read."""


class Log(Protocol):
    """One partition of the commands topic to read, and all of them to append to."""

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that is kept and the one after the last. `PartitionMissing`."""

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`, or None where there is none."""

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none come within half a second.

        Raises `OutOfRange` where the log does not hold the next offset.
        """

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset` from where the last `fetch` came, None where it is not
        there. The next `fetch` goes on where that one ended."""

    def end(self) -> int:
        """Return the offset after the last record as far as it is known."""

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition; returns when all in-sync replicas have acknowledged.

        The broker's append time is returned, in milliseconds since the epoch.
        """

    async def note(self, next_offset: int) -> None:
        """Tell lag tools how far this worker is. Best effort."""


class Transaction(Protocol):
    """The worker's open transaction; see `microfin_worker.postgres_store.PostgresTransaction`."""

    async def lock(self) -> PartitionRow:
        """Lock the partition's row, and return it."""

    async def known_outcomes(self, keys: Sequence[LegKey]) -> dict[LegKey, Outcome]:
        """Return the outcomes that exist of `keys`."""

    async def accounts(self, numbers: Sequence[str]) -> dict[str, Account]:
        """Return the accounts that exist of `numbers`."""

    async def write(self, place: Place, write: BatchWrite) -> None:
        """Write the batch and advance the partition."""

    async def delete_sent(self, sent: Sequence[OutboxPlace]) -> None:
        """Delete outbox rows that the broker has acknowledged."""

    async def touch(self) -> None:
        """Show other claimants that this partition has an owner."""


class Store(Protocol):
    """One partition's place in its shard; see `microfin_worker.postgres_store.PostgresStore`."""

    async def claim(self, held: int | None = None) -> Claim:
        """Raise the epoch, commit, then read the row and the outbox.

        Raises `Fenced` where another claimant came after the epoch that this worker `held`.
        """

    async def commit(self, place: Place, write: BatchWrite) -> None:
        """Write and commit a batch, if the row is at `place`.

        Raises `PlaceChanged`, `RepeatsFound` or `StaleAccounts` where nothing was written.
        """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction that commits when the block ends without an error."""

    async def idle_seconds(self) -> float:
        """Return for how long no claimant has touched the partition."""


class Replies(Protocol):
    """The way back to the waiting API processes."""

    async def send(self, answers: Sequence[Answer]) -> None:
        """Send answers; never fails, may lose."""


class Cache(Protocol):
    """The cache of accounts."""

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache accounts; never fails, may lose."""


class Clock(Protocol):
    """Time. The decision core has none; the worker needs it for pauses and for lag."""

    def monotonic(self) -> float:
        """Return seconds since some moment, never going back."""

    def now(self) -> int:
        """Return milliseconds since the Unix epoch."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


def _always_answers() -> float:
    return 0.0


class Edges(msgspec.Struct, frozen=True):
    """All edges of one worker. `log_unanswered` tells for how many seconds the log's broker has not
    answered."""

    log: Log
    store: Store
    replies: Replies
    cache: Cache
    clock: Clock
    log_unanswered: Callable[[], float] = _always_answers
