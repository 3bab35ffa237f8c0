"""The cache of accounts in Redis, for reading only: nothing is ever decided from it."""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

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
    """An account as it was at `version`. `balance` is minor units of `currency`.

    `as_of` is when it was the newest, in milliseconds since the Unix epoch; 0 in what a worker puts
    means now.
    """

    number: str
    owner: str
    currency: str
    balance: int
    state: AccountState
    seq: int
    version: int
    as_of: int = 0


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
            _, as_of, account = held.split(b" ", 2)
            return replace(_decode(account), as_of=int(as_of))
        except (ValueError, msgspec.MsgspecError):
            return None

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache `accounts`, each unless a newer version is there. Never fails."""
        now = time.time_ns() // 1_000_000
        calls = [
            (
                f"account:{account.number}",
                (
                    b"%d" % account.version,
                    b"%d %b" % (account.as_of or now, _encode(account)),
                    b"%d" % SECONDS,
                ),
            )
            for account in accounts
        ]
        if calls:
            with contextlib.suppress(RedisUnavailable):
                await self._redis.evaluate(_PUT_NEWER, calls)
