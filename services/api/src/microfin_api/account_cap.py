"""How many accounts a user may have, so that nobody fills the ledger alone.

It is asked before an account is opened, past the hot path, and the cap is a soft one: a number's
partition is decided by its worker alone, who does not see the user's other accounts. What one user
asks for at the same time may exceed it by as many as are under way, and a shard that does not
answer counts as holding none.
"""

import asyncio
from typing import Final

import structlog

from microfin import reading
from microfin.database import DATABASE_ERRORS, Pool, is_connection_loss
from microfin.sql_literals import text
from microfin_api.copied_rows import copy_first_row
from microfin_api.parts import Parts
from microfin_api.problems import Problem

logger = structlog.get_logger(__name__)

_WAIT_SECONDS: Final = 1.0
_COUNT: Final = (
    "SELECT count(*) FROM (SELECT FROM accounts WHERE owner = {owner} LIMIT {most}) AS own"
)


async def require_room(parts: Parts, user: str, operation: str) -> None:
    """Raise `Problem` where `user` has all accounts that one may have.

    A repeat of an `operation` that has been decided passes: it gets its first answer.
    """
    most = parts.settings.accounts_per_user
    if await _counted(parts, user, most) < most:
        return
    if operation in await reading.operations(parts.pools, [operation]):
        return
    raise Problem(
        "too_many_accounts",
        f"A user may have {most} accounts. This request was not sent; whether an earlier one with "
        "this key takes effect, its operation tells.",
        operationId=operation,
    )


async def _counted(parts: Parts, user: str, most: int) -> int:
    """Return how many accounts `user` has, `most` on each shard at most."""
    counting = [
        asyncio.create_task(_count(pool, user, most))
        for shard, pool in enumerate(parts.pools)
        if parts.leases.of_shard(shard).valid() is not None
    ]
    if not counting:
        return 0
    counted, silent = await asyncio.wait(counting, timeout=_WAIT_SECONDS)
    for count in silent:
        count.cancel()  # whatever it hangs on, nobody waits for its end
    return sum(count.result() for count in counted)


async def _count(pool: Pool, user: str, most: int) -> int:
    statement = _COUNT.format(owner=text(user), most=most)
    try:
        async with pool.acquire() as connection:
            row = await copy_first_row(connection, statement)
    except DATABASE_ERRORS as error:
        if not is_connection_loss(error):
            raise
        logger.warning("accounts not counted", error=repr(error))
        return 0
    return int.from_bytes(row[0]) if row else 0
