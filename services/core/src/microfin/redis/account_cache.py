"""The cache of accounts in Redis, for reading only: no worker ever decides by it.

A reader must know for certain who owns an account. So an entry carries a seal
(`microfin.redis.seal`) over its key, its version and its time. Only the processes that read
accounts from PostgreSQL can make it. An entry without the seal, or older than a minute, counts as
missing.
"""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from microfin.ledger.operation import AccountState
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import BELIEVED_SECONDS, Seal, is_fresh, shared_seal

SECONDS: Final = BELIEVED_SECONDS
"""How long an entry lives, and so how long a reader may see an old balance after a lost write."""

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
    """An account as it was at `version`. `balance` is minor units of `currency`.

    `as_of` is the time at which this was the newest version, in milliseconds since the Unix epoch.
    A worker puts 0, which means now.
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
    """Reads and writes `account:{number}`. Without a seal it writes, but believes no entry."""

    def __init__(self, redis: GuardedRedis, seal: Seal | None) -> None:
        self._redis = redis
        self._seal = seal

    async def get(self, number: str) -> CachedAccount | None:
        """Return the account, or None where Redis has no entry that can be believed."""
        try:
            held = await self._redis.get(f"account:{number}")
        except RedisUnavailable:
            return None
        return None if held is None else self._read(number, held)

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Cache each of `accounts`, unless Redis has a newer version. Never fails."""
        now = _now()
        calls = [self._call(account, account.as_of or now) for account in accounts]
        if calls:
            with contextlib.suppress(RedisUnavailable):
                await self._redis.evaluate(_PUT_NEWER, calls)

    def _read(self, number: str, held: bytes) -> CachedAccount | None:
        try:
            version, as_of, sealed = held.split(b" ", 2)
            if self._seal is None or not is_fresh(int(as_of), _now()):
                return None
            document = self._seal.open(_place(number, version, as_of), sealed)
            return None if document is None else replace(_decode(document), as_of=int(as_of))
        except (ValueError, msgspec.MsgspecError):
            return None

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
