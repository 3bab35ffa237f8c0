"""Read-only queries of the shards: operations, accounts, statements and routing.

The API runs them outside its hot path, the command line runs them for people. Times are
milliseconds since the Unix epoch, amounts and balances minor units of the account's currency.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from microfin.ledger.operation import AccountState, Kind, Leg, Operation, Outcome, add_up
from microfin.ledger.routing import Routing
from microfin.postgres.connections import Connection, Pool, read_snapshot
from microfin.postgres.rows import MILLISECONDS, OUTCOME_COLUMNS, outcome_of


class FoundOperation(msgspec.Struct, frozen=True):
    """An operation that a partition has decided, and the outcome of its request.

    The request's outcome holds the operation's user and the hash of its body.
    """

    operation: Operation
    request: Outcome


class StoredAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account's row. `read_at` is the database's clock when it was read."""

    number: str
    owner: str
    currency: str
    balance: int
    state: AccountState
    seq: int
    version: int
    opened_at: int
    read_at: int


class AccountPlace(msgspec.Struct, frozen=True):
    """An account's place among its owner's: the older ones first."""

    opened_at: int
    number: str


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an account's statement. `counterparty` is empty for deposits and withdrawals."""

    seq: int
    amount: int
    balance_after: int
    operation: str
    leg: Leg
    kind: Kind
    counterparty: str
    time: int


class StatementFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of a statement to read; None means no restriction.

    `before_seq` is the keyset cursor: only entries below it. `since` is the first moment of the
    range, `until` the first moment after it.
    """

    before_seq: int | None = None
    since: int | None = None
    until: int | None = None
    kind: Kind | None = None


class StatementPage(msgspec.Struct, frozen=True):
    """Entries, newest first. Below `next_seq` there may be more; if it is None, there are none.

    A page of one kind may have fewer entries than its limit, although more follow below.
    """

    lines: list[StatementLine]
    next_seq: int | None


class RoutingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A shard's routing, and the growth under way there, if any."""

    shard: int
    shards: int
    routing: Routing
    intended: Routing | None


_LEGS = f"SELECT {OUTCOME_COLUMNS} FROM legs_of($1::uuid[])"  # noqa: S608 - the columns are ours

_ACCOUNTS = f"""
SELECT number, owner, currency, balance, state, seq, version,
    {MILLISECONDS.format(column="opened_at")} AS opened_at,
    {MILLISECONDS.format(column="clock_timestamp()")} AS read_at
FROM accounts
"""  # noqa: S608 - the columns are ours

_LAST_SEQ_BEFORE = """
SELECT last_seq_before($1, 'epoch'::timestamptz + $2::bigint * interval '1 millisecond')
"""

_NEWEST_SEQ = "SELECT coalesce((SELECT seq FROM accounts WHERE number = $1), 0)"

_ENTRIES = f"""
SELECT seq, amount, balance_after, operation_id, leg, kind, counterparty,
    {MILLISECONDS.format(column="at")} AS time
FROM entries_of($1, $2, $3, $4, $5)
ORDER BY seq DESC LIMIT $5
"""  # noqa: S608 - the columns are ours

# The index `accounts_opened` gives them in this order.
_PAGE_OF_ACCOUNTS = """
WHERE owner = $1
    AND (opened_at, number) > ('epoch'::timestamptz + $2::bigint * interval '1 millisecond', $3)
ORDER BY opened_at, number LIMIT $4
"""

_BEYOND_EVERY_SEQ = 2**62
_SILENCE_SECONDS = 0.5  # then nobody waits for a shard whose answer is not needed
_BEFORE_EVERY_ACCOUNT = AccountPlace(0, "")

SCANNED_FOR_A_KIND = 5_000
"""The most entries to scan for one page of one kind, which may be rare."""


async def operations(pools: Sequence[Pool], ids: Sequence[str]) -> dict[str, FoundOperation]:
    """Return those of the operations `ids` whose requests have been decided, from all shards.

    If a shard does not answer, the others' answers are enough where they are final for all of
    `ids`: legs are never revoked. Otherwise something is unknown: raises the database's errors.
    """
    found = await _combined(pools, ids)
    torn = [operation for operation, complete in found.items() if complete is None]
    if torn:
        # The shards were read at different moments, and a transfer went on between them: the legs
        # before the one that was seen are committed by now.
        found.update(await _combined(pools, torn))
    return {operation: complete for operation, complete in found.items() if complete is not None}


async def _combined(pools: Sequence[Pool], ids: Sequence[str]) -> dict[str, FoundOperation | None]:
    asked = [asyncio.create_task(legs(pool, ids)) for pool in pools]
    try:
        await asyncio.wait(asked, timeout=_SILENCE_SECONDS)
        answered = [it for it in asked if it.done() and it.exception() is None]
        combined = combine(outcome for it in answered for outcome in it.result())
        if len(answered) == len(asked) or all(_is_final(combined.get(it)) for it in ids):
            return combined
        read = await asyncio.gather(*asked)
        return combine(outcome for outcomes in read for outcome in outcomes)
    finally:
        for it in asked:
            it.cancel()  # has no effect on tasks that have ended


def _is_final(found: FoundOperation | None) -> bool:
    return found is not None and found.operation.final


async def legs(pool: Pool, ids: Sequence[str]) -> list[Outcome]:
    """Return the outcomes of all legs that one shard has of the operations `ids`."""
    async with read_snapshot(pool) as connection:
        rows = await connection.fetch(_LEGS, ids)
    return [outcome_of(row) for row in rows]


def combine(outcomes: Iterable[Outcome]) -> dict[str, FoundOperation | None]:
    """Add the legs up to operations; None where a leg is missing before one that is there."""
    by_operation: dict[str, dict[Leg, Outcome]] = {}
    for outcome in outcomes:
        by_operation.setdefault(outcome.operation, {})[outcome.leg] = outcome
    return {operation: _found(found) for operation, found in by_operation.items()}


def _found(found: dict[Leg, Outcome]) -> FoundOperation | None:
    request, credit, refund = found.get("request"), found.get("credit"), found.get("refund")
    if request is None or (refund is not None and credit is None):
        return None
    return FoundOperation(add_up(request, credit, refund), request)


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
        state=row["state"],
        seq=row["seq"],
        version=row["version"],
        opened_at=row["opened_at"],
        read_at=row["read_at"],
    )


async def entries(pool: Pool, number: str, wanted: StatementFilter, limit: int) -> StatementPage:
    """Return a page of at most `limit` entries of the account."""
    async with read_snapshot(pool) as connection:
        above, below = 0, wanted.before_seq or _BEYOND_EVERY_SEQ
        if wanted.since is not None:
            above = await _last_seq_before(connection, number, wanted.since)
        if wanted.until is not None:
            below = min(below, await _last_seq_before(connection, number, wanted.until) + 1)
        lowest = above
        if wanted.kind is not None:
            newest: int = await connection.fetchval(_NEWEST_SEQ, number)
            below = min(below, newest + 1)
            lowest = max(above, below - 1 - SCANNED_FOR_A_KIND)
        rows = await connection.fetch(_ENTRIES, number, lowest, below, wanted.kind, limit)
    lines = [_statement_line(row) for row in rows]
    seen_down_to = lines[-1].seq if len(lines) == limit else lowest + 1
    return StatementPage(lines, seen_down_to if seen_down_to > above + 1 else None)


async def balance_at(pool: Pool, number: str, time: int) -> StatementLine | None:
    """Return the account's last entry at `time` or before, with the balance then, or None."""
    async with read_snapshot(pool) as connection:
        seq = await _last_seq_before(connection, number, time + 1)
        rows = await connection.fetch(_ENTRIES, number, seq - 1, seq + 1, None, 1)
    return _statement_line(rows[0]) if rows else None


async def _last_seq_before(connection: Connection, number: str, time: int) -> int:
    """Return the number of the account's last entry before `time`, 0 where there is none."""
    seq: int = await connection.fetchval(_LAST_SEQ_BEFORE, number, time)
    return seq


def _statement_line(row: Any) -> StatementLine:
    return StatementLine(
        seq=row["seq"],
        amount=row["amount"],
        balance_after=row["balance_after"],
        operation=row["operation_id"].hex,
        leg=row["leg"],
        kind=row["kind"],
        counterparty=row["counterparty"],
        time=row["time"],
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
