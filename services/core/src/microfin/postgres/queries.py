"""Read-only queries of the shards: operations, accounts and routing.

The API runs them outside its hot path, the command line runs them for people. Times are
milliseconds since the Unix epoch, amounts and balances minor units of the account's currency.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from microfin.ledger.operation import AccountState, Leg, Operation, Outcome, add_up
from microfin.ledger.routing import Routing
from microfin.postgres.archive_reading import Archive, what_is_archived
from microfin.postgres.connections import Pool, read_snapshot
from microfin.postgres.rows import MILLISECONDS, OUTCOME_COLUMNS, outcome_of


class FoundOperation(msgspec.Struct, frozen=True):
    """An operation that a partition has decided, and the outcomes of its legs.

    The request's outcome holds the operation's user and the hash of its body.
    """

    operation: Operation
    request: Outcome
    legs: list[Outcome]


class StoredAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account's row. `read_at` is the database's clock when it was read."""

    number: str
    owner: str
    currency: str
    balance: int
    held: int
    state: AccountState
    seq: int
    version: int
    opened_at: int
    read_at: int


class AccountPlace(msgspec.Struct, frozen=True):
    """An account's place among its owner's: the older ones first."""

    opened_at: int
    number: str


class RoutingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A shard's routing, and the growth under way there, if any."""

    shard: int
    shards: int
    routing: Routing
    intended: Routing | None


_LEGS = f"SELECT {OUTCOME_COLUMNS} FROM legs_of($1::uuid[])"  # noqa: S608 - the columns are ours

_ACCOUNTS = f"""
SELECT number, owner, currency, balance, held, state, seq, version,
    {MILLISECONDS.format(column="opened_at")} AS opened_at,
    {MILLISECONDS.format(column="clock_timestamp()")} AS read_at
FROM accounts
"""  # noqa: S608 - the columns are ours

# The index `accounts_opened` gives them in this order.
_PAGE_OF_ACCOUNTS = """
WHERE owner = $1
    AND (opened_at, number) > ('epoch'::timestamptz + $2::bigint * interval '1 millisecond', $3)
ORDER BY opened_at, number LIMIT $4
"""

_NEXT_OFFSET = "SELECT next_offset FROM partitions WHERE partition = $1"

_SKEW = 60_000  # milliseconds by which the clocks of two brokers may differ, at the very most
_APART = 24 * 3_600_000  # milliseconds: legs of one operation are closer to its request
_time_of = attrgetter("time")
_SILENCE_SECONDS = 0.5  # then nobody waits for a shard whose answer is not needed
_BEFORE_EVERY_ACCOUNT = AccountPlace(0, "")


async def operations(
    pools: Sequence[Pool],
    ids: Sequence[str],
    archives: Sequence[Archive] = (),
    undecided: Callable[[], Awaitable[bool]] | None = None,
) -> dict[str, FoundOperation]:
    """Return those of the operations `ids` whose requests have been decided, from all shards.

    If a shard does not answer, the others' answers are enough where they are final for all of
    `ids`: legs are never revoked. Otherwise something is unknown: raises the database's errors.

    The shards' `archives` are only asked for legs that they may have and that are missing, and not
    for operations that are `undecided`. Raises `ArchiveFault` where one of these is unknown.
    """
    read = await _of_all_shards(pools, ids)
    found = combine(read)
    torn = [operation for operation, complete in found.items() if complete is None]
    if torn:
        # The shards were read at different moments, and a transfer went on between them: the legs
        # before the one that was seen are committed by now.
        read += await _of_all_shards(pools, torn)
        found = combine(read)
    missing = [it for it in ids if not _is_final(found.get(it))]
    if archives and missing and (found or undecided is None or not await undecided()):
        read += await _archived_legs(pools, archives, missing, read)
        found = combine(read)
    return {operation: complete for operation, complete in found.items() if complete is not None}


async def _of_all_shards(pools: Sequence[Pool], ids: Sequence[str]) -> list[Outcome]:
    asked = [asyncio.create_task(legs(pool, ids)) for pool in pools]
    try:
        await asyncio.wait(asked, timeout=_SILENCE_SECONDS)
        answered = [it for it in asked if it.done() and it.exception() is None]
        read = [outcome for it in answered for outcome in it.result()]
        if len(answered) == len(asked) or _all_final(read, ids):
            return read
        return [outcome for outcomes in await asyncio.gather(*asked) for outcome in outcomes]
    finally:
        for it in asked:
            it.cancel()  # has no effect on tasks that have ended


async def _archived_legs(
    pools: Sequence[Pool],
    archives: Sequence[Archive],
    ids: Sequence[str],
    live: Sequence[Outcome],
) -> list[Outcome]:
    """Return the archived legs of `ids`, of which the shards have the `live` ones."""
    found = combine(live)
    answers = await asyncio.gather(
        *(
            _legs_in_archive(pool, archive, ids, found)
            for pool, archive in zip(pools, archives, strict=True)
        ),
        return_exceptions=True,
    )
    read = [outcome for it in answers if not isinstance(it, BaseException) for outcome in it]
    errors = [it for it in answers if isinstance(it, BaseException)]
    if errors and not _all_final([*live, *read], ids):
        raise errors[0]
    return read


async def _legs_in_archive(
    pool: Pool,
    archive: Archive,
    ids: Sequence[str],
    found: Mapping[str, FoundOperation | None],
) -> list[Outcome]:
    archived = await what_is_archived(pool)
    # The legs that a transfer lacks are decided after its request.
    asked = [
        it
        for it in ids
        if (known := found.get(it)) is None or known.request.time <= archived.until + _SKEW
    ]
    if not asked or not archived.volumes:
        return []
    async with archive.reading(archived) as connection:
        rows = await connection.fetch_at_once(_LEGS, asked)
    return [outcome_of(row) for row in rows]


async def is_undecided(pools: Sequence[Pool], partition: int, offset: int) -> bool:
    """Return whether the partition has not decided yet what is in its log at `offset`."""
    async with read_snapshot(pools[partition % len(pools)]) as connection:
        following: int | None = await connection.fetchval(_NEXT_OFFSET, partition)
    return following is None or following <= offset


def _all_final(read: Iterable[Outcome], ids: Sequence[str]) -> bool:
    combined = combine(read)
    return all(_is_final(combined.get(it)) for it in ids)


def _is_final(found: FoundOperation | None) -> bool:
    return found is not None and found.operation.final


async def legs(pool: Pool, ids: Sequence[str]) -> list[Outcome]:
    """Return the outcomes of all legs that one shard has of the operations `ids`."""
    async with read_snapshot(pool) as connection:
        rows = await connection.fetch(_LEGS, ids)
    return [outcome_of(row) for row in rows]


def combine(outcomes: Iterable[Outcome]) -> dict[str, FoundOperation | None]:
    """Add the legs up to operations; None where a leg is missing before one that is there."""
    by_operation: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_operation.setdefault(outcome.operation, []).append(outcome)
    return {operation: _found(_newest(found)) for operation, found in by_operation.items()}


def _newest(found: Sequence[Outcome]) -> dict[Leg, Outcome]:
    """Return the legs of the newest operation of an id.

    A key that was forgotten with an archived volume, and used again, makes another operation of the
    same id (ADR 45): at least a month later.
    """
    began = max((it.time for it in found if it.leg == "request"), default=0) - _APART
    return {it.leg: it for it in sorted(found, key=_time_of) if it.time >= began}


def _found(found: dict[Leg, Outcome]) -> FoundOperation | None:
    request, credit, refund = found.get("request"), found.get("credit"), found.get("refund")
    if request is None or (refund is not None and credit is None):
        return None
    return FoundOperation(add_up(request, credit, refund), request, list(found.values()))


async def account(pool: Pool, number: str) -> StoredAccount | None:
    """Return the account `number` of this shard, or None."""
    async with read_snapshot(pool) as connection:
        row = await connection.fetchrow(_ACCOUNTS + "WHERE number = $1", number)
    return None if row is None else _stored_account(row)


async def accounts(pool: Pool, numbers: Sequence[str]) -> dict[str, StoredAccount]:
    """Return those of the accounts `numbers` that this shard has, in one round trip."""
    async with pool.acquire() as connection:
        rows = await connection.fetch_at_once(_ACCOUNTS + "WHERE number = ANY($1::text[])", numbers)
    return {row["number"]: _stored_account(row) for row in rows}


async def accounts_of(
    pools: Sequence[Pool], owner: str, after: AccountPlace | None, limit: int
) -> list[StoredAccount]:
    """Return at most `limit` accounts of the user `owner`, oldest first, from all shards.

    Only accounts after `after`. Raises the database's errors: a list that lacks a shard's accounts
    would be wrong.
    """
    read = await asyncio.gather(*(_accounts_of(pool, owner, after, limit) for pool in pools))
    stored = [found for accounts in read for found in accounts]
    return sorted(stored, key=lambda found: (found.opened_at, found.number))[:limit]


async def _accounts_of(
    pool: Pool, owner: str, after: AccountPlace | None, limit: int
) -> list[StoredAccount]:
    place = after or _BEFORE_EVERY_ACCOUNT
    async with read_snapshot(pool) as connection:
        rows = await connection.fetch(
            _ACCOUNTS + _PAGE_OF_ACCOUNTS, owner, place.opened_at, place.number, limit
        )
    return [_stored_account(row) for row in rows]


def _stored_account(row: Any) -> StoredAccount:
    return StoredAccount(
        number=row["number"],
        owner=row["owner"].hex,
        currency=row["currency"],
        balance=row["balance"],
        held=row["held"],
        state=row["state"],
        seq=row["seq"],
        version=row["version"],
        opened_at=row["opened_at"],
        read_at=row["read_at"],
    )


async def routing(pool: Pool) -> RoutingRow:
    """Return the shard's routing. Raises `LookupError` where `microfin migrate` has not run."""
    async with read_snapshot(pool) as connection:
        row = await connection.fetchrow(
            "SELECT shard, shards, generation, partition_count, intended_generation,"
            " intended_partition_count FROM routing"
        )
    if row is None:
        raise LookupError("The shard has no routing yet: run `microfin migrate` first.")
    intended = row["intended_generation"]
    return RoutingRow(
        shard=row["shard"],
        shards=row["shards"],
        routing=Routing(row["generation"], row["partition_count"]),
        intended=None if intended is None else Routing(intended, row["intended_partition_count"]),
    )
