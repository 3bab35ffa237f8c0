"""Ending all sessions of a user at once, even those that Redis has cached.

One transaction raises the user's epoch and deletes the sessions. A sign-in under way has the older
epoch and cannot open a session any more. Before and after the transaction the sessions get
tombstones in Redis (`microfin.redis.ended_sessions`). At last the API processes hear of
it (`microfin.redis.ended_channel`), because they remember sessions.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from microfin.postgres.connections import Connection, Pool
from microfin.redis.ended_channel import ASKED_AGAIN_SECONDS
from microfin.redis.ended_sessions import UNCERTAIN_SECONDS, mark_ended
from microfin.redis.guarded import GuardedRedis

_RAISE: Final = "UPDATE users SET session_epoch = session_epoch + 1"

SIGN_OUT: Final = f"{_RAISE} WHERE id = $1 RETURNING session_epoch"
DISABLE: Final = (
    f"{_RAISE}, disabled_at = coalesce(disabled_at, clock_timestamp())"
    " WHERE id = $1 RETURNING session_epoch"
)
SET_PASSWORD: Final = f"{_RAISE}, password_hash = $2 WHERE id = $1 RETURNING session_epoch"
CHANGE_PASSWORD: Final = (
    f"{_RAISE}, password_hash = $2 WHERE id = $1 AND session_epoch = $3 AND disabled_at IS NULL"
    " RETURNING session_epoch"
)
ENABLE: Final = "UPDATE users SET disabled_at = NULL WHERE id = $1 RETURNING id"


Say = Callable[[Sequence[bytes]], Awaitable[bool]]
"""Says to all API processes that sessions have ended; returns whether none accepts them now."""


class Ended(msgspec.Struct, frozen=True):
    """How many sessions have ended, and for how many seconds they may still be accepted."""

    sessions: int
    effective_within: int


async def end_all_sessions(
    pool: Pool,
    redis: GuardedRedis,
    say: Say,
    user: str,
    change: str = SIGN_OUT,
    values: Sequence[Any] = (),
    also: Callable[[Connection, int], Awaitable[None]] | None = None,
) -> Ended | None:
    """Apply `change` to the user with the id `user` and end all of the user's sessions.

    `values` are the parameters of `change`, beginning with $2. `also` runs in the same transaction,
    with the new epoch. Returns None, and changes nothing, if there is no such user or `change` does
    not fit any more.
    """
    identity = uuid.UUID(user)
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        rows = await connection.fetch(
            "SELECT token_hash FROM sessions WHERE user_id = $1", identity
        )
    known = {row["token_hash"] for row in rows}
    early = await mark_ended(redis, list(known))
    async with pool.acquire() as connection, connection.transaction():
        epoch = await connection.fetchval(change, identity, *values)
        if epoch is None:
            return None
        rows = await connection.fetch(
            "DELETE FROM sessions WHERE user_id = $1 RETURNING token_hash", identity
        )
        if also is not None:
            await also(connection, epoch)
    ended = [row["token_hash"] for row in rows]
    late = await mark_ended(redis, ended)
    marked = late or (early and known.issuperset(ended))
    return Ended(len(ended), await effective_within(ended, say, marked=marked))


async def effective_within(token_hashes: Sequence[bytes], say: Say, *, marked: bool) -> int:
    """Tell all API processes of ended sessions, and return for how many seconds one of them may
    still accept one. `marked`: Redis has their tombstones.
    """
    said = await say(token_hashes)
    if not marked:
        return UNCERTAIN_SECONDS
    return 0 if said else ASKED_AGAIN_SECONDS
