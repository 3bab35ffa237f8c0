"""The limit on a user's accounts, so that nobody fills the ledger alone.

The cap is checked before an account is opened, and it is soft: the worker of the new number's
partition decides alone, and does not see the user's other accounts. Requests that are under way at
once may exceed the cap by their number, and a shard that does not answer counts as empty.

Counting costs a query on every shard. So a process counts once, and for a minute lets a sixteenth
of the remaining accounts be opened without counting again: sixteen processes that do so stay within
the cap together. Near the cap a sixteenth is none, and each opening counts.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from microfin.postgres import queries
from microfin.postgres.connections import DATABASE_ERRORS, Pool, is_connection_loss
from microfin.process.settings import ApiSettings
from microfin_api.commands.leases import Leases
from microfin_api.http.problems import Problem

logger = structlog.get_logger(__name__)

_WAIT_SECONDS: Final = 1.0
_QUOTA_SECONDS: Final = 60.0
_PROCESSES: Final = 16
"""How many processes share the accounts that remain."""
_REMEMBERED: Final = 10_000
_COUNT: Final = "SELECT count(*) FROM (SELECT FROM accounts WHERE owner = $1 LIMIT $2) AS own"


class _Quota(msgspec.Struct):
    """How many accounts a user may open here without a count, and until when (loop time)."""

    left: int
    until: float


class AccountCap:
    """Limits each user to the number of accounts in the settings."""

    def __init__(self, settings: ApiSettings, pools: Sequence[Pool], leases: Leases) -> None:
        self._most = settings.accounts_per_user
        self._pools = pools
        self._leases = leases
        self._quotas: dict[str, _Quota] = {}

    async def require_room(self, user: str, operation: str) -> None:
        """Raise `Problem` if `user` has reached the limit.

        A repeat of an `operation` that has been decided passes: it gets its first answer.
        """
        if self._use_quota(user):
            return
        room = await self._count_room(user)
        if room > 0 or operation in await queries.operations(self._pools, [operation]):
            return
        raise Problem(
            "too_many_accounts",
            f"A user may have {self._most} accounts. This request was not sent. Its operation "
            "shows whether an earlier one with this key takes effect.",
            operationId=operation,
        )

    def _use_quota(self, user: str) -> bool:
        """Use one of the openings that need no count; return whether there was one."""
        quota = self._quotas.get(user)
        if quota is None or not quota.left or _loop_time() > quota.until:
            return False
        quota.left -= 1
        return True

    async def _count_room(self, user: str) -> int:
        """Count, set the quota, and return how many more accounts may be opened."""
        begun = _loop_time()
        counts = await self._counts(user)
        room = self._most - sum(count for count in counts if count is not None)
        self._quotas.pop(user, None)
        if None not in counts and (share := room // _PROCESSES):
            self._quotas[user] = _Quota(share, begun + _QUOTA_SECONDS)
            if len(self._quotas) > _REMEMBERED:
                del self._quotas[next(iter(self._quotas))]
        return room

    async def _counts(self, user: str) -> list[int | None]:
        """Return how many accounts `user` has on each shard, None if it does not answer."""
        counting = [
            asyncio.create_task(_count(pool, user, self._most))
            for shard, pool in enumerate(self._pools)
            if self._leases.of_shard(shard).valid() is not None
        ]
        away: list[int | None] = [None] * (len(self._pools) - len(counting))
        if not counting:
            return away
        counted, silent = await asyncio.wait(counting, timeout=_WAIT_SECONDS)
        for count in silent:
            count.cancel()  # it may hang: nobody waits for its end
            away.append(None)
        return away + [count.result() for count in counted]


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _count(pool: Pool, user: str, most: int) -> int | None:
    """Return how many accounts `user` has on one shard, at most `most`; None if it is away."""
    try:
        async with pool.acquire() as connection:
            row = await connection.fetch_first(_COUNT, user, most)
    except DATABASE_ERRORS as error:
        if not is_connection_loss(error):
            raise
        logger.warning("accounts not counted", error=repr(error))
        return None
    return int(row[0])
