"""Statements on the routing and on leases."""

from typing import Any, Final

import msgspec

from microfin.ledger.lease import ACTIVATION_LOCK_SECONDS
from microfin.postgres.shards import NEEDED_SCHEMA
from simulation.database import Database
from simulation.sessions import Execution, Row, Transaction


def read_routing(database: Database, transaction: Transaction) -> Execution:
    """Return the routing; what else this session reads is of the same moment."""
    yield from ()  # it locks nothing
    transaction.session.snapshot = dict(database.tables.partitions)
    return database.tables.routing


def read_shard(database: Database, _: Transaction) -> Execution:
    """Return which shard this is, of how many, and its schema, which is the newest."""
    yield from ()  # it locks nothing
    return database.tables.routing["shard"], database.tables.routing["shards"], NEEDED_SCHEMA


def read_partitions(database: Database, transaction: Transaction) -> Execution:
    """Return all partitions of the moment in which the routing was read."""
    yield from ()  # it locks nothing
    rows = transaction.session.snapshot or database.tables.partitions
    now = database.loop.time()
    return [row | {"idle_seconds": now - row["touched_at"]} for row in rows.values()]


def set_lock_timeout(_: Database, transaction: Transaction) -> Execution:
    """Wait for locks for a second at most."""
    yield from ()  # it locks nothing
    transaction.lock_timeout = ACTIVATION_LOCK_SECONDS


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
    """Write an intent, if none is fresh and the routing is as given."""

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
    """Remove the intent of `token`."""
    if database.tables.routing["intent_token"] != token:
        return
    yield ("routing",)
    if database.tables.routing["intent_token"] == token:
        _put_routing(database, transaction, **_NO_INTENT)


def lock_intent(
    database: Database,
    _: Transaction,
    token: Any,
    own_generation: int,
    own_count: int,
    fresh: float,
) -> Execution:
    """Lock the routing, if the intent of `token` is there and fresh, and all else is as given."""

    def is_there() -> bool:
        row = database.tables.routing
        return (
            row["intent_token"] == token
            and (row["generation"], row["partition_count"]) == (own_generation, own_count)
            and row["intended_at"] > database.loop.time() - fresh
        )

    if not is_there():
        return None
    yield ("routing",)
    return 1 if is_there() else None


def lock_partitions(database: Database, _: Transaction) -> Execution:
    """Lock all partitions' rows, in order, and return them."""
    numbers = sorted(database.tables.partitions)
    for number in numbers:
        yield ("partition", number)
    return [database.tables.partitions[number] for number in numbers]


def activate_routing(
    database: Database,
    transaction: Transaction,
    generation: int,
    partition_count: int,
    stale: float,
) -> Execution:
    """Make a routing the shard's, and end the intent, unless it is stale."""
    yield ("routing",)
    if intent_is_stale(database, stale):
        return None
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
    return 1


def intent_is_stale(database: Database, stale: float) -> bool:
    """Return whether there is no intent, or one of `stale` seconds and more."""
    return bool(database.tables.routing["intended_at"] <= database.loop.time() - stale)


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
    read = [
        row["wire_version"] if row["wire_epoch"] == row["epoch"] else 1
        for row in database.tables.partitions.values()
    ]
    routing = database.tables.routing | {"wire_version": min(read, default=None)}
    yield ("lease", instance)
    transaction.put(database.tables.leases, instance, {"renewed_at": database.loop.time()})
    return [msgspec.json.encode(routing)]


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
