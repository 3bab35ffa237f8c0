"""How many accounts a user may have, so that nobody fills the ledger alone.

The cap is asked before an account is opened, and it is a soft one: a number's partition is decided
by its worker alone, who does not see the user's other accounts. What one user asks for at the same
time may exceed it by as many as are under way, and a shard that does not answer counts as holding
none.

Counting costs a query on every shard. So a process counts once and then gives away a part of the
room that it found without counting again, for a minute: a sixteenth, so that sixteen processes
which do the same together stay within the cap. Near the cap that part is none, and each opening
counts.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from microfin.postgres import queries
from microfin.postgres.connections import DATABASE_ERRORS, Pool, is_connection_loss
from microfin.postgres.literals import text
from microfin.process.settings import ApiSettings
from microfin_api.commands.leases import Leases
from microfin_api.commands.one_round_trip import fetch_first_row
from microfin_api.http.problems import Problem

logger = structlog.get_logger(__name__)

_WAIT_SECONDS: Final = 1.0
_QUOTA_SECONDS: Final = 60.0
_PROCESSES: Final = 16
"""Among how many processes the room that is left is shared out."""
_REMEMBERED: Final = 10_000
_COUNT: Final = (
    "SELECT count(*) FROM (SELECT FROM accounts WHERE owner = {owner} LIMIT {most}) AS own"
)


class _Quota(msgspec.Struct):
    """How many accounts a user may open here without a count, and until when (loop time)."""

    left: int
    until: float


class AccountCap:
    """Keeps every user below the number of accounts that the settings allow."""

    def __init__(self, settings: ApiSettings, pools: Sequence[Pool], leases: Leases) -> None:
        self._most = settings.accounts_per_user
        self._pools = pools
        self._leases = leases
        self._quotas: dict[str, _Quota] = {}

    async def require_room(self, user: str, operation: str) -> None:
        """Raise `Problem` where `user` has all accounts that one may have.

        A repeat of an `operation` that has been decided passes: it gets its first answer.
        """
        if self._use_quota(user):
            return
        room = await self._count_room(user)
        if room > 0 or operation in await queries.operations(self._pools, [operation]):
            return
        raise Problem(
            "too_many_accounts",
            f"A user may have {self._most} accounts. This request was not sent; whether an earlier "
            "one with this key takes effect, its operation tells.",
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
        """Count, remember what may be opened without a count, and return the room there is."""
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
        """Return how many accounts `user` has on each shard, None where it does not answer."""
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
            count.cancel()  # whatever it hangs on, nobody waits for its end
            away.append(None)
        return away + [count.result() for count in counted]


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _count(pool: Pool, user: str, most: int) -> int | None:
    """Return how many accounts `user` has on one shard, `most` at most; None: it is away."""
    statement = _COUNT.format(owner=text(user), most=most)
    try:
        async with pool.acquire() as connection:
            row = await fetch_first_row(connection, statement)
    except DATABASE_ERRORS as error:
        if not is_connection_loss(error):
            raise
        logger.warning("accounts not counted", error=repr(error))
        return None
    return int.from_bytes(row[0]) if row else 0
