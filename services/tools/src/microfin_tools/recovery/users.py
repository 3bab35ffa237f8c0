"""People whose user row is gone: shard 0 was restored from before they signed up.

Users are not in the log. Their accounts are, on every shard, with the user's id as owner.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from microfin.postgres.connections import Pool, read_snapshot
from microfin_tools.recovery.report import LostUser

_AT_A_TIME: Final = 5_000

_OWNERS: Final = """
SELECT DISTINCT owner FROM accounts WHERE owner > $1 ORDER BY owner LIMIT $2
"""
_MISSING: Final = """
SELECT wanted.id FROM unnest($1::uuid[]) AS wanted (id) LEFT JOIN users USING (id)
WHERE users.id IS NULL
"""
_ACCOUNTS: Final = "SELECT number FROM accounts WHERE owner = $1 ORDER BY number"


async def lost_users(pools: Sequence[Pool]) -> list[LostUser]:
    """Return the owners of accounts on any shard that have no user row on shard 0."""
    missing: set[UUID] = set()
    for pool in pools:
        missing |= await _unknown_owners(pools[0], pool)
    return [LostUser(user=it.hex, accounts=await _accounts(pools, it)) for it in sorted(missing)]


async def _unknown_owners(users: Pool, pool: Pool) -> set[UUID]:
    missing: set[UUID] = set()
    last = UUID(int=0)
    while True:
        async with read_snapshot(pool) as connection:
            owners = [row[0] for row in await connection.fetch(_OWNERS, last, _AT_A_TIME)]
        if not owners:
            return missing
        async with read_snapshot(users) as connection:
            missing |= {UUID(str(row[0])) for row in await connection.fetch(_MISSING, owners)}
        last = owners[-1]


async def _accounts(pools: Sequence[Pool], user: UUID) -> list[str]:
    numbers: list[str] = []
    for pool in pools:
        async with read_snapshot(pool) as connection:
            numbers += [row[0] for row in await connection.fetch(_ACCOUNTS, user)]
    return numbers
