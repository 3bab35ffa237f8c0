"""Ended sessions in Redis: a tombstone replaces the cached session.

A tombstone only prevents caching: a process that finds one asks PostgreSQL, which decides. So a
read that began before the end cannot put the session back into the cache, and a forged tombstone
signs nobody out.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import BELIEVED_SECONDS, CLOCK_TOLERANCE_SECONDS

TOMBSTONE: Final = b"ended"

UNCERTAIN_SECONDS: Final = BELIEVED_SECONDS + CLOCK_TOLERANCE_SECONDS
"""How long an ended session may still be accepted if Redis did not get the tombstone."""

_SECONDS: Final = 2 * UNCERTAIN_SECONDS  # then nobody believes a read from before the end
_AT_ONCE: Final = 200


def session_key(token_hash: bytes) -> str:
    """Return the key of a session in Redis.

    It holds the hash of the token: somebody who can list Redis' keys must not be able to sign in
    with them.
    """
    return f"session:{token_hash.hex()}"


async def mark_ended(redis: GuardedRedis, token_hashes: Sequence[bytes]) -> bool:
    """Write tombstones for sessions that have ended or are about to; return whether Redis has all.

    Callers do this before they delete the sessions and again after it: if one of the two calls
    fails, the other one still counts.
    """
    for begin in range(0, len(token_hashes), _AT_ONCE):
        written = await asyncio.gather(
            *(_mark_one(redis, it) for it in token_hashes[begin : begin + _AT_ONCE])
        )
        if not all(written):
            return False
    return True


async def _mark_one(redis: GuardedRedis, token_hash: bytes) -> bool:
    try:
        await redis.set(session_key(token_hash), TOMBSTONE, seconds=_SECONDS)
    except RedisUnavailable:
        return False
    return True
