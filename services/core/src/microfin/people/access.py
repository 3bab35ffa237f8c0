"""Ending all sessions of a user at once, even those that Redis has cached.

One transaction raises the user's epoch and deletes the sessions. A sign-in under way has the older
epoch and cannot open a session any more. Before and after the transaction the sessions get
tombstones in Redis (`microfin.redis.ended_sessions`).
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from microfin.postgres.connections import Connection, Pool
from microfin.redis.ended_sessions import mark_ended
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


class Ended(msgspec.Struct, frozen=True):
    """How many sessions have ended, and whether Redis knows: if not, they may still be accepted for
    `ended_sessions.UNCERTAIN_SECONDS`."""

    sessions: int
    certain: bool


async def end_all_sessions(
    pool: Pool,
    redis: GuardedRedis,
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
    return Ended(len(ended), certain=late or (early and known.issuperset(ended)))
