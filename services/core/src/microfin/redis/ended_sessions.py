"""Ended sessions, as Redis remembers them: by a tombstone in the place of what was cached.

A tombstone only keeps others from caching: whoever finds one asks PostgreSQL, which decides. So a
read that began before the end cannot put the session back into the cache, and a tombstone that
somebody has forged signs nobody out.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import BELIEVED_SECONDS, CLOCK_TOLERANCE_SECONDS

TOMBSTONE: Final = b"ended"

UNCERTAIN_SECONDS: Final = BELIEVED_SECONDS + CLOCK_TOLERANCE_SECONDS
"""How long an ended session may be honoured where Redis could not be told."""

_SECONDS: Final = 2 * UNCERTAIN_SECONDS  # what was read before the end is not believed any more
_AT_ONE_TIME: Final = 200


def session_key(token_hash: bytes) -> str:
    """Return the key of a session in Redis.

    By the hash: whoever can list Redis' keys must not be able to sign in with them.
    """
    return f"session:{token_hash.hex()}"


async def mark_ended(redis: GuardedRedis, token_hashes: Sequence[bytes]) -> bool:
    """Let Redis know that these sessions have ended, or are about to; False where it could not be.

    Called before the sessions are deleted and again after it: whichever of the two fails, the other
    stands.
    """
    for begin in range(0, len(token_hashes), _AT_ONE_TIME):
        told = await asyncio.gather(
            *(_mark_one(redis, it) for it in token_hashes[begin : begin + _AT_ONE_TIME])
        )
        if not all(told):
            return False
    return True


async def _mark_one(redis: GuardedRedis, token_hash: bytes) -> bool:
    try:
        await redis.set(session_key(token_hash), TOMBSTONE, seconds=_SECONDS)
    except RedisUnavailable:
        return False
    return True
