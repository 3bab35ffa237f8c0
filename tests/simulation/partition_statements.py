"""Statements on a partition's row, its outbox, accounts and outcomes.

Each is a generator: it yields what it must lock, and returns its result.
"""

from collections.abc import Sequence

from microfin.process.clock import SystemClock
from simulation.database import Database
from simulation.rows import hold_row, outcome_row, unique_violation
from simulation.sessions import Execution, Transaction

_CLOCK = SystemClock()


def commit_transaction(database: Database, transaction: Transaction) -> Execution:
    """COMMIT."""
    yield from ()  # it locks nothing
    database.commit(transaction)


def lock_partition(database: Database, _: Transaction, partition: int) -> Execution:
    """Lock a partition's row and return it."""
    if partition not in database.tables.partitions:
        return None
    yield ("partition", partition)
    return database.tables.partitions[partition]


def raise_epoch(
    database: Database, transaction: Transaction, partition: int, held: int | None, version: int
) -> Execution:
    """Raise the epoch, if it is `held`, and return it."""
    rows = database.tables.partitions
    if partition not in rows or held not in (None, rows[partition]["epoch"]):
        return None
    yield ("partition", partition)
    row = rows[partition]
    if held not in (None, row["epoch"]):
        return None
    epoch = row["epoch"] + 1
    read = {"wire_epoch": epoch, "wire_version": version}
    raised = row | {"epoch": epoch, "touched_at": database.loop.time()} | read
    transaction.put(rows, partition, raised)
    return raised["epoch"]


def insert_partition(
    database: Database, transaction: Transaction, partition: int, version: int
) -> Execution:
    """Insert a new partition's row. The routing's shared lock is an exclusive one here, which can
    only make two claims of new partitions wait for one another."""
    yield ("routing",)
    routing = database.tables.routing
    yield ("partition", partition)
    if partition in database.tables.partitions:
        raise unique_violation("partitions_pkey")
    row = {
        "partition": partition,
        "epoch": 1,
        "next_offset": 0,
        "fingerprint": None,
        "generation": routing["generation"],
        "partition_count": routing["partition_count"],
        "touched_at": database.loop.time(),
        "wire_epoch": 1,
        "wire_version": version,
    }
    transaction.put(database.tables.partitions, partition, row)
    return 1


def idle_seconds(database: Database, _: Transaction, partition: int) -> Execution:
    """Return for how long nobody has touched the partition."""
    yield from ()  # it locks nothing
    row = database.tables.partitions[partition]
    return database.loop.time() - row["touched_at"]


def read_outbox(database: Database, _: Transaction, partition: int) -> Execution:
    """Return the partition's outbox in its order."""
    yield from ()  # it locks nothing
    rows = sorted(key for key in database.tables.outbox if key[0] == partition)
    return [
        {"log_offset": key[1], "step": key[2], "command": database.tables.outbox[key]}
        for key in rows
    ]


def read_outcomes(database: Database, _: Transaction, operations: Sequence[str]) -> Execution:
    """Return all outcomes of `operations`."""
    yield from ()  # it locks nothing
    outcomes = database.tables.outcomes
    return [
        outcome_row(outcomes[(operation, leg)])
        for operation in sorted(set(operations))
        for leg in ("credit", "refund", "request")
        if (operation, leg) in outcomes
    ]


def read_accounts(database: Database, _: Transaction, numbers: Sequence[str]) -> Execution:
    """Return those of the accounts that exist."""
    yield from ()  # it locks nothing
    accounts = database.tables.accounts
    return [accounts[number] for number in numbers if number in accounts]


def read_holds(database: Database, _: Transaction, ids: Sequence[str]) -> Execution:
    """Return those of the holds that are open."""
    yield from ()  # it locks nothing
    holds = database.tables.holds
    return [hold_row(holds[it]) for it in ids if it in holds]


def read_due_holds(
    database: Database, _: Transaction, ends: int, operation: str, limit: int
) -> Execution:
    """Return holds whose time has been over for a second, after a place, in their order."""
    yield from ()  # it locks nothing
    count = {"partition_count": database.tables.routing["partition_count"]}
    latest = _CLOCK.now() - 1_000
    due = sorted(
        (hold.ends, hold.operation)
        for hold in database.tables.holds.values()
        if hold.ends < latest and (hold.ends, hold.operation) > (ends, operation)
    )
    rows = [hold_row(database.tables.holds[it]) | count for _, it in due[:limit]]
    return rows or [{"operation_id": None} | count]
