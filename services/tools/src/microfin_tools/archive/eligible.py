"""Whether a volume may leave the ledger: it is old, and everything in it is final.

The ledger forgets that a leg was decided when it leaves. So no command for this leg may still come.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from microfin.postgres.connections import Connection
from microfin_tools.archive.databases import ShardAndArchive
from microfin_tools.archive.volume_tables import home

_AT_A_TIME: Final = 5_000

_YOUNG: Final = """
SELECT at FROM {home}.outcomes WHERE at > clock_timestamp() - $1::interval LIMIT 1
"""

# Most transfers begin and end in one volume: only the others are looked up elsewhere.
_UNDER_WAY: Final = """
SELECT operation_id FROM {home}.outcomes o
WHERE (status = 'debited' OR (leg = 'credit' AND status = 'rejected')) AND NOT EXISTS (
    SELECT FROM {home}.outcomes final WHERE final.operation_id = o.operation_id
        AND final.leg <> 'request' AND final.status = 'settled')
"""

_FINAL: Final = """
SELECT operation_id FROM outcomes
WHERE operation_id = ANY($1::uuid[]) AND leg <> 'request' AND status = 'settled'
"""

_IN_VOLUME: Final = """
SELECT operation_id FROM {home}.outcomes WHERE operation_id = ANY($1::uuid[]) LIMIT 1
"""


# What is done with a hold later is explained by the outcome that made it.
_OPEN_HOLD: Final = """
SELECT h.operation_id FROM holds h JOIN {home}.outcomes o
    ON o.operation_id = h.operation_id AND o.leg = 'request' LIMIT 1
"""


async def why_not(
    pairs: Sequence[ShardAndArchive], shard: ShardAndArchive, volume: int, older_than: timedelta
) -> str:
    """Return why a volume of `shard` may not leave the ledger, empty if it may."""
    young: datetime | None = await shard.ledger.fetchval(
        _YOUNG.format(home=home(volume)), older_than
    )
    if young is not None:
        return f"it holds younger outcomes, such as one of {young:%Y-%m-%d}"
    hold = await shard.ledger.fetchval(_OPEN_HOLD.format(home=home(volume)))
    if hold is not None:
        return f"hold {hold.hex} is open"
    waiting = await _in_an_outbox(pairs, shard, volume)
    if waiting is not None:
        return f"a command of operation {waiting} waits in an outbox"
    moving = await _in_transit(pairs, shard, volume)
    if moving is not None:
        return f"transfer {moving} is neither credited nor refunded: run `microfin audit`"
    return ""


async def _in_an_outbox(
    pairs: Sequence[ShardAndArchive], shard: ShardAndArchive, volume: int
) -> str | None:
    """Return one of the volume's operations that has a command in an outbox of any shard."""
    for pair in pairs:
        rows = await pair.ledger.fetch("SELECT DISTINCT operation_id FROM outbox")
        found = await shard.ledger.fetchval(
            _IN_VOLUME.format(home=home(volume)), [row["operation_id"] for row in rows]
        )
        if found is not None:
            return str(found.hex)
    return None


async def _in_transit(
    pairs: Sequence[ShardAndArchive], shard: ShardAndArchive, volume: int
) -> str | None:
    """Return one of the volume's transfers that no shard, and no archive, has ended."""
    async for operations in _under_way(shard.ledger, volume):
        missing = set(operations)
        for connection in (it for pair in pairs for it in (pair.ledger, pair.archive)):
            if missing:
                rows = await connection.fetch(_FINAL, list(missing))
                missing.difference_update(row["operation_id"] for row in rows)
        if missing:
            return str(missing.pop().hex)
    return None


async def _under_way(ledger: Connection, volume: int) -> AsyncIterator[list[Any]]:
    """Yield, in pieces, the transfers that the volume alone does not show to be final."""
    async with ledger.transaction(readonly=True):
        await ledger.execute(
            "DECLARE under_way NO SCROLL CURSOR FOR" + _UNDER_WAY.format(home=home(volume))
        )
        while rows := await ledger.fetch(f"FETCH {_AT_A_TIME} FROM under_way"):
            yield [row["operation_id"] for row in rows]
        await ledger.execute("CLOSE under_way")
