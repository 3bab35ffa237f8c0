"""The cache of accounts in Redis, for reading only: nothing is ever decided from it."""

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from microfin.operation import AccountState
from microfin.redis_cluster import GuardedRedis, RedisUnavailable

SECONDS: Final = 60
"""How long an entry lives, and so how long a lost write can show an old balance."""

# A worker that was fenced while it wrote, or a reader that was slow, must not put an older version
# over a newer one. The version stands before the JSON, to be compared without parsing it.
_PUT_NEWER: Final = """
local held = redis.call('GET', KEYS[1])
if held and tonumber(string.match(held, '^%d+')) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'EX', ARGV[3])
return 1
"""


class CachedAccount(msgspec.Struct, frozen=True, gc=False):
    """An account as it was at `version`. `balance` is minor units of `currency`."""

    number: str
    owner: str
    currency: str
    balance: int
    state: AccountState
    seq: int
    version: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CachedAccount).decode


class AccountCache:
    """Reads and writes `account:{number}`."""

    def __init__(self, redis: GuardedRedis) -> None:
        self._redis = redis

    async def get(self, number: str) -> CachedAccount | None:
        """Return the account, or None where it is not cached or Redis is away."""
        try:
            held = await self._redis.get(f"account:{number}")
        except RedisUnavailable:
            return None
        if held is None:
            return None
        try:
            return _decode(held.partition(b" ")[2])
        except msgspec.MsgspecError:
            return None

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache `accounts`, each unless a newer version is there. Never fails."""
        calls = [
            (
                f"account:{account.number}",
                (str(account.version).encode(), _encode(account), str(SECONDS).encode()),
            )
            for account in accounts
        ]
        if calls:
            with contextlib.suppress(RedisUnavailable):
                await self._redis.evaluate(_PUT_NEWER, calls)
