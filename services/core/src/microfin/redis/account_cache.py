"""Copies of accounts in Redis, for API processes of the release before; nobody else reads them.

Those processes believe a copy that carries a seal (`microfin.redis.seal`) over its key, its
version and its time, for a minute. So while one of them runs, a worker must put each account that
it changes, before it answers. API processes of this release read PostgreSQL (ADR 46, which also
says when this module can go).
"""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from microfin.ledger.operation import AccountState
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import BELIEVED_SECONDS, Seal, shared_seal

SECONDS: Final = BELIEVED_SECONDS
"""How long a copy lives, and so how long a reader may see an old balance after a lost write."""

# A worker that was fenced while it wrote, or a slow reader, must not replace a newer version by an
# older one. Version and time come before the JSON, so that the script compares them without parsing
# it. Of two entries of the same version the later one wins: readers may not believe the first one.
_PUT_NEWER: Final = """
local held = redis.call('GET', KEYS[1])
if held then
    local version, as_of = string.match(held, '^(%d+) (%d+) ')
    local newer = tonumber(ARGV[1]) - (tonumber(version) or 0)
    if newer < 0 or newer == 0 and (tonumber(as_of) or 0) >= tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3], 'EX', ARGV[4])
return 1
"""


class CachedAccount(msgspec.Struct, frozen=True, gc=False):
    """An account as it is at `version`, now. `balance` is minor units of `currency`."""

    number: str
    owner: str
    currency: str
    balance: int
    state: AccountState
    seq: int
    version: int


_encode = msgspec.json.Encoder().encode


class AccountCache:
    """Writes `account:{number}`. Without a seal nobody believes what it writes."""

    def __init__(self, redis: GuardedRedis, seal: Seal | None) -> None:
        self._redis = redis
        self._seal = seal

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache each of `accounts`, unless Redis has a newer version. Never fails."""
        now = _now()
        calls = [self._call(account, now) for account in accounts]
        if calls:
            with contextlib.suppress(RedisUnavailable):
                await self._redis.evaluate(_PUT_NEWER, calls)

    def _call(self, account: CachedAccount, as_of: int) -> tuple[str, tuple[bytes, ...]]:
        version, time_text = b"%d" % account.version, b"%d" % as_of
        document = _encode(account)
        if self._seal is not None:
            document = self._seal.close(_place(account.number, version, time_text), document)
        return f"account:{account.number}", (version, time_text, document, b"%d" % SECONDS)


def account_seal(secret: str) -> Seal | None:
    """Return the seal of accounts, made from the secret that workers and API share."""
    return shared_seal(secret, "cached-account")


def _place(number: str, version: bytes, as_of: bytes) -> bytes:
    return b"account:%b %b %b" % (number.encode(), version, as_of)


def _now() -> int:
    return time.time_ns() // 1_000_000
