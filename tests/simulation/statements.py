"""The statements that the product sends, and what each means to the simulated shard.

Known by their exact text: a statement that the product changes is not carried out by its old
meaning, but refused until its new one stands here. `test_stand_in.py` compares these meanings with
PostgreSQL's own.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import asyncpg
import msgspec

from microfin import reading, store, wire
from microfin.batch_statement import BatchWrite, OutboxPlace, Place
from microfin.decision import Account, Decisions, Entry
from microfin.operation import Outcome
from microfin_api import leases
from simulation.database import Database, Execution, Row, Transaction


class UnknownStatement(Exception):
    """The product sends a statement that the simulation does not know."""


class PlacedWrite(msgspec.Struct, frozen=True):
    """What stands for the text of `microfin.batch_statement.batch_statement`."""

    place: Place
    write: BatchWrite


class _PlaceChanged(asyncpg.PostgresError):  # type: ignore[misc]
    sqlstate = "MF001"


class _StaleAccounts(asyncpg.PostgresError):  # type: ignore[misc]
    sqlstate = "MF002"


class Identifier(str):
    """A uuid as asyncpg returns it, as far as it is used."""

    __slots__ = ()

    @property
    def hex(self) -> str:
        """The 32 hexadecimal digits."""
        return str(self)


def commit_transaction(database: Database, transaction: Transaction) -> Execution:
    """COMMIT."""
    database.commit(transaction)
    return
    yield


# The partition's row --------------------------------------------------------------------------


def lock_partition(database: Database, _: Transaction, partition: int) -> Execution:
    """Lock a partition's row and return it."""
    if partition not in database.tables.partitions:
        return None
    yield ("partition", partition)
    return database.tables.partitions[partition]


def raise_epoch(
    database: Database, transaction: Transaction, partition: int, held: int | None
) -> Execution:
    """Raise the epoch, if it is `held`, and return it."""
    rows = database.tables.partitions
    if partition not in rows or held not in (None, rows[partition]["epoch"]):
        return None
    yield ("partition", partition)
    row = rows[partition]
    if held not in (None, row["epoch"]):
        return None
    raised = row | {"epoch": row["epoch"] + 1, "touched_at": database.loop.time()}
    transaction.put(rows, partition, raised)
    return raised["epoch"]


def insert_partition(database: Database, transaction: Transaction, partition: int) -> Execution:
    """Insert a new partition's row. The routing's shared lock is an exclusive one here, which can
    only make two claims of new partitions wait for one another."""
    yield ("routing",)
    routing = database.tables.routing
    yield ("partition", partition)
    if partition in database.tables.partitions:
        raise _unique_violation("partitions_pkey")
    row = {
        "partition": partition,
        "epoch": 1,
        "next_offset": 0,
        "fingerprint": None,
        "generation": routing["generation"],
        "partition_count": routing["partition_count"],
        "touched_at": database.loop.time(),
    }
    transaction.put(database.tables.partitions, partition, row)
    return 1


def touch(database: Database, transaction: Transaction, partition: int) -> Execution:
    """Show that the partition has an owner."""
    yield ("partition", partition)
    row = database.tables.partitions[partition]
    touched = row | {"touched_at": database.loop.time()}
    transaction.put(database.tables.partitions, partition, touched)


def idle_seconds(database: Database, _: Transaction, partition: int) -> Execution:
    """Return for how long nobody has touched the partition."""
    row = database.tables.partitions[partition]
    return database.loop.time() - row["touched_at"]
    yield


def read_outbox(database: Database, _: Transaction, partition: int) -> Execution:
    """Return the partition's outbox in its order."""
    rows = sorted(key for key in database.tables.outbox if key[0] == partition)
    return [
        {"log_offset": key[1], "step": key[2], "command": database.tables.outbox[key]}
        for key in rows
    ]
    yield


def delete_sent(
    database: Database,
    transaction: Transaction,
    partition: int,
    offsets: Sequence[int],
    steps: Sequence[int],
) -> Execution:
    """Delete outbox rows."""
    for offset, step in zip(offsets, steps, strict=True):
        transaction.put(database.tables.outbox, (partition, offset, step), None)
    return
    yield


# Accounts and outcomes ------------------------------------------------------------------------


def read_outcomes(database: Database, _: Transaction, operations: Sequence[str]) -> Execution:
    """Return all outcomes of `operations`."""
    outcomes = database.tables.outcomes
    return [
        _outcome_row(outcomes[(operation, leg)])
        for operation in sorted(set(operations))
        for leg in ("credit", "refund", "request")
        if (operation, leg) in outcomes
    ]
    yield


def read_accounts(database: Database, _: Transaction, numbers: Sequence[str]) -> Execution:
    """Return those of the accounts that exist."""
    accounts = database.tables.accounts
    return [accounts[number] for number in numbers if number in accounts]
    yield


def write_batch(
    database: Database, transaction: Transaction, place: Place, write: BatchWrite
) -> Execution:
    """Write a batch, if the partition's row is at `place` (revision 0002)."""
    yield from _advance(database, transaction, place, write)
    transaction.batches.append((place, write))
    decisions = write.decisions
    yield from _open_accounts(database, transaction, decisions)
    yield from _insert_outcomes(database, transaction, decisions.outcomes)
    yield from _insert_entries(database, transaction, place, decisions.entries)
    yield from _update_accounts(database, transaction, write)
    _add_contra(database, transaction, place, decisions)
    _insert_outbox(database, transaction, place, decisions)
    _delete_sent(database, transaction, place, write.sent)
    for record in write.quarantined:
        key = (place.partition, record.offset)
        if key in database.tables.quarantine:
            raise _unique_violation("quarantine_pkey")
        transaction.put(database.tables.quarantine, key, {"reason": record.reason})


def is_at(row: Row, place: Place) -> bool:
    """Tell whether the partition's row is where a batch was decided from."""
    return (
        row["epoch"] == place.epoch
        and row["generation"] == place.routing.generation
        and row["partition_count"] == place.routing.partition_count
        and row["next_offset"] == place.next_offset
    )


def _advance(
    database: Database, transaction: Transaction, place: Place, write: BatchWrite
) -> Execution:
    rows = database.tables.partitions
    if place.partition in rows:
        yield ("partition", place.partition)
    row = rows.get(place.partition)
    if row is None or not is_at(row, place):
        raise _PlaceChanged("the partition is not where this batch was decided")
    advanced = row | {
        "next_offset": write.next_offset,
        "fingerprint": write.fingerprint,
        "touched_at": database.loop.time(),
    }
    transaction.put(rows, place.partition, advanced)


def _open_accounts(database: Database, transaction: Transaction, decisions: Decisions) -> Execution:
    for number in decisions.opened:
        yield ("account", number)
        if number in database.tables.accounts:
            raise _unique_violation("accounts_pkey")
        account = decisions.accounts[number]
        transaction.put(database.tables.accounts, number, account_row(account))


def _insert_outcomes(
    database: Database, transaction: Transaction, outcomes: Sequence[Outcome]
) -> Execution:
    inserted = set()
    for outcome in outcomes:
        key = (outcome.operation, outcome.leg)
        yield ("outcome", key)
        if key in database.tables.outcomes or key in inserted:
            raise _unique_violation("outcomes_pkey")
        inserted.add(key)
        transaction.put(database.tables.outcomes, key, outcome)


def _insert_entries(
    database: Database, transaction: Transaction, place: Place, entries: Sequence[Entry]
) -> Execution:
    inserted = set()
    for entry in entries:
        key = (entry.account, entry.seq)
        yield ("entry", key)
        if entry.balance_after < 0 or entry.amount == 0:
            raise asyncpg.CheckViolationError("entries_balance_after_check")
        if key in database.tables.entries or key in inserted:
            raise _unique_violation("entries_pkey")
        inserted.add(key)
        transaction.put(database.tables.entries, key, entry)


def _update_accounts(database: Database, transaction: Transaction, write: BatchWrite) -> Execution:
    decisions, accounts = write.decisions, database.tables.accounts
    for number, account in decisions.accounts.items():
        if number in decisions.opened:
            continue
        if number in accounts:
            yield ("account", number)
        row = accounts.get(number)
        if row is None or row["version"] != write.versions[number]:
            raise _StaleAccounts("not all accounts are as remembered")
        if account.balance < 0:
            raise asyncpg.CheckViolationError("accounts_balance_check")
        transaction.put(accounts, number, account_row(account))


def _add_contra(
    database: Database, transaction: Transaction, place: Place, decisions: Decisions
) -> None:
    balances = database.tables.contra
    for (contra, currency), change in decisions.contra.items():
        key = (place.partition, contra, currency)
        transaction.put(balances, key, balances.get(key, 0) + change)


def _insert_outbox(
    database: Database, transaction: Transaction, place: Place, decisions: Decisions
) -> None:
    for row in decisions.outbox:
        key = (place.partition, row.offset, row.step)
        if key in database.tables.outbox:
            raise _unique_violation("outbox_pkey")
        transaction.put(database.tables.outbox, key, wire.encode(row.command))


def _delete_sent(
    database: Database, transaction: Transaction, place: Place, sent: Sequence[OutboxPlace]
) -> None:
    for offset, step in sent:
        transaction.put(database.tables.outbox, (place.partition, offset, step), None)


def account_row(account: Account) -> Row:
    """Return an account as its table's row."""
    return {
        "number": account.number,
        "owner": Identifier(account.owner),
        "currency": account.currency,
        "balance": account.balance,
        "state": account.state,
        "seq": account.seq,
        "version": account.version,
        "entry_time": account.entry_time,
    }


def _outcome_row(outcome: Outcome) -> Row:
    row = msgspec.structs.asdict(outcome)
    row["operation_id"] = Identifier(outcome.operation)
    row["user_id"] = Identifier(outcome.user) if outcome.user else None
    row["log_offset"] = outcome.offset
    return row


def _unique_violation(constraint: str) -> asyncpg.UniqueViolationError:
    error = asyncpg.UniqueViolationError(f"duplicate key: {constraint}")
    error.constraint_name = constraint
    return error


# Routing and leases ---------------------------------------------------------------------------


def read_routing(database: Database, transaction: Transaction) -> Execution:
    """Return the routing; what else this session reads is of the same moment."""
    transaction.session.snapshot = dict(database.tables.partitions)
    return database.tables.routing
    yield


def read_partitions(database: Database, transaction: Transaction) -> Execution:
    """Return all partitions of the moment in which the routing was read."""
    rows = transaction.session.snapshot or database.tables.partitions
    now = database.loop.time()
    return [row | {"idle_seconds": now - row["touched_at"]} for row in rows.values()]
    yield


def set_lock_timeout(_: Database, transaction: Transaction) -> Execution:
    """Wait for locks for a second at most."""
    transaction.lock_timeout = 1.0
    return
    yield


def prepare(
    database: Database,
    transaction: Transaction,
    generation: int,
    partition_count: int,
    token: Any,
    own_generation: int,
    own_count: int,
    stale: float,
) -> Execution:
    """Write an intent, if none is fresh and the routing is as said."""

    def fits() -> bool:
        row = database.tables.routing
        return (row["generation"], row["partition_count"]) == (own_generation, own_count) and (
            row["intent_token"] is None or row["intended_at"] < database.loop.time() - stale
        )

    if not fits():
        return None
    yield ("routing",)
    if not fits():
        return None
    _put_routing(
        database,
        transaction,
        intended_generation=generation,
        intended_partition_count=partition_count,
        intent_token=token,
        intended_at=database.loop.time(),
    )
    return 1


def withdraw(database: Database, transaction: Transaction, token: Any) -> Execution:
    """Take the intent of `token` back."""
    if database.tables.routing["intent_token"] != token:
        return
    yield ("routing",)
    if database.tables.routing["intent_token"] == token:
        _put_routing(database, transaction, **_NO_INTENT)


def lock_intent(
    database: Database, _: Transaction, token: Any, generation: int, fresh: float
) -> Execution:
    """Lock the routing, if the intent of `token` stands and is fresh."""

    def stands() -> bool:
        row = database.tables.routing
        return (
            row["intent_token"] == token
            and row["generation"] == generation - 1
            and row["intended_at"] > database.loop.time() - fresh
        )

    if not stands():
        return None
    yield ("routing",)
    return 1 if stands() else None


def lock_partitions(database: Database, _: Transaction) -> Execution:
    """Lock all partitions' rows, in order, and return them."""
    numbers = sorted(database.tables.partitions)
    for number in numbers:
        yield ("partition", number)
    return [database.tables.partitions[number] for number in numbers]


def activate_routing(
    database: Database, transaction: Transaction, generation: int, partition_count: int
) -> Execution:
    """Make a routing the shard's, and end the intent."""
    yield ("routing",)
    _put_routing(
        database,
        transaction,
        generation=generation,
        partition_count=partition_count,
        **_NO_INTENT,
    )
    database.history.note(
        database.name, "generation {}: {} partitions", generation, partition_count
    )


def activate_partitions(
    database: Database, transaction: Transaction, generation: int, partition_count: int
) -> Execution:
    """Make a routing that of all partitions."""
    rows = database.tables.partitions
    routing = {"generation": generation, "partition_count": partition_count}
    for number in list(rows):
        yield ("partition", number)
        transaction.put(rows, number, rows[number] | routing)


def renew_lease(database: Database, transaction: Transaction, instance: str) -> Execution:
    """Renew a lease, and return the routing as the statement found it when it began."""
    routing = database.tables.routing
    yield ("lease", instance)
    transaction.put(database.tables.leases, instance, {"renewed_at": database.loop.time()})
    return routing


def delete_lease(database: Database, transaction: Transaction, instance: str) -> Execution:
    """Give a lease back."""
    yield ("lease", instance)
    transaction.put(database.tables.leases, instance, None)


_NO_INTENT: Final[Row] = {
    "intended_generation": None,
    "intended_partition_count": None,
    "intent_token": None,
    "intended_at": 0.0,
}


def _put_routing(database: Database, transaction: Transaction, **changes: Any) -> None:
    tables = database.tables
    transaction.put(tables.singletons, "routing", tables.routing | changes)


# Knowing them ---------------------------------------------------------------------------------

_STATEMENTS: Final[dict[str, Callable[..., Execution]]] = {
    store._ROW + "FOR UPDATE": lock_partition,
    store._OUTBOX: read_outbox,
    store._KNOWN: read_outcomes,
    store._ACCOUNTS: read_accounts,
    store._SENT: delete_sent,
    reading._LEGS: read_outcomes,
    leases._RENEW: renew_lease,
    "DELETE FROM leases WHERE instance = $1": delete_lease,
    "UPDATE partitions SET touched_at = clock_timestamp() WHERE partition = $1": touch,
    "UPDATE partitions SET epoch = epoch + 1, touched_at = clock_timestamp()"
    " WHERE partition = $1 AND epoch = coalesce($2, epoch) RETURNING epoch": raise_epoch,
    "INSERT INTO partitions (partition, epoch, generation, partition_count)"
    " SELECT $1, 1, generation, partition_count FROM"
    " (SELECT generation, partition_count FROM routing FOR SHARE) AS current"
    " RETURNING epoch": insert_partition,
    "SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8"
    " FROM partitions WHERE partition = $1": idle_seconds,
    "SELECT generation, partition_count FROM routing": read_routing,
    "SELECT partition, next_offset,"
    " extract(epoch FROM clock_timestamp() - touched_at)::float8 AS idle_seconds"
    " FROM partitions": read_partitions,
    "SET LOCAL lock_timeout = '1s'": set_lock_timeout,
    "UPDATE routing SET intended_generation = $1, intended_partition_count = $2,"
    " intent_token = $3, intended_at = clock_timestamp()"
    " WHERE generation = $4 AND partition_count = $5 AND (intent_token IS NULL"
    " OR intended_at < clock_timestamp() - $6 * interval '1 second') RETURNING 1": prepare,
    "UPDATE routing SET intended_generation = NULL, intended_partition_count = NULL,"
    " intent_token = NULL, intended_at = NULL WHERE intent_token = $1": withdraw,
    "SELECT 1 FROM routing WHERE intent_token = $1 AND generation = $2 - 1"
    " AND intended_at > clock_timestamp() - $3 * interval '1 second' FOR UPDATE": lock_intent,
    "SELECT partition, next_offset FROM partitions ORDER BY partition FOR UPDATE": lock_partitions,
    "UPDATE routing SET generation = $1, partition_count = $2,"
    " intended_generation = NULL, intended_partition_count = NULL,"
    " intent_token = NULL, intended_at = NULL": activate_routing,
    "UPDATE partitions SET generation = $1, partition_count = $2": activate_partitions,
}

READS: Final = frozenset(
    {read_outbox, read_outcomes, read_accounts, read_routing, read_partitions, idle_seconds}
)
"""Those that change and lock nothing."""


@cache
def statement(text: str) -> Callable[..., Execution]:
    """Return the meaning of a statement. Raises `UnknownStatement`."""
    try:
        return _STATEMENTS[text]
    except KeyError:
        raise UnknownStatement(
            f"The simulation does not know this statement. Give it its meaning in {__file__}, and "
            f"its place in test_stand_in.py:\n{text}"
        ) from None
