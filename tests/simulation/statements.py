"""The statements that the product sends, and what each does on the simulated shard.

A statement is known by its exact text, or by the product's own constant. A new one is refused until
its meaning is here. `test_simulated_shard.py` compares these meanings with PostgreSQL's own.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from microfin.postgres import queries, shards
from microfin_api.commands import leases
from microfin_worker import postgres_store
from simulation.partition_statements import (
    idle_seconds,
    insert_partition,
    lock_partition,
    raise_epoch,
    read_accounts,
    read_due_holds,
    read_holds,
    read_outbox,
    read_outcomes,
)
from simulation.routing_statements import (
    activate_partitions,
    activate_routing,
    delete_lease,
    lock_intent,
    lock_partitions,
    prepare,
    read_partitions,
    read_routing,
    read_shard,
    renew_lease,
    set_lock_timeout,
    withdraw,
)
from simulation.sessions import Execution


class UnknownStatement(Exception):
    """The product sends a statement that the simulation does not know."""


_STATEMENTS: Final[dict[str, Callable[..., Execution]]] = {
    shards.SHARD_AND_SCHEMA: read_shard,
    postgres_store._ROW + "FOR UPDATE": lock_partition,
    postgres_store._OUTBOX: read_outbox,
    postgres_store._KNOWN: read_outcomes,
    postgres_store._ACCOUNTS: read_accounts,
    postgres_store._HOLDS: read_holds,
    postgres_store._DUE: read_due_holds,
    queries._LEGS: read_outcomes,
    leases._RENEW: renew_lease,
    "DELETE FROM leases WHERE instance = $1": delete_lease,
    "UPDATE partitions SET epoch = epoch + 1, touched_at = clock_timestamp(),"
    " wire_epoch = epoch + 1, wire_version = $3"
    " WHERE partition = $1 AND epoch = coalesce($2, epoch) RETURNING epoch": raise_epoch,
    "INSERT INTO partitions (partition, epoch, generation, partition_count,"
    " wire_epoch, wire_version)"
    " SELECT $1, 1, generation, partition_count, 1, $2 FROM"
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
    "SELECT 1 FROM routing WHERE intent_token = $1 AND generation = $2"
    " AND partition_count = $3"
    " AND intended_at > clock_timestamp() - $4 * interval '1 second' FOR UPDATE": lock_intent,
    "SELECT partition, next_offset FROM partitions ORDER BY partition FOR UPDATE": lock_partitions,
    "UPDATE routing SET generation = $1, partition_count = $2,"
    " intended_generation = NULL, intended_partition_count = NULL,"
    " intent_token = NULL, intended_at = NULL"
    " WHERE intended_at > clock_timestamp() - $3 * interval '1 second'"
    " RETURNING 1": activate_routing,
    "UPDATE partitions SET generation = $1, partition_count = $2": activate_partitions,
}

READS: Final = frozenset(
    {
        read_outbox,
        read_outcomes,
        read_accounts,
        read_holds,
        read_due_holds,
        read_routing,
        read_shard,
        read_partitions,
        idle_seconds,
    }
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
            f"its place in test_simulated_shard.py:\n{text}"
        ) from None
