"""`microfin user disable`, `enable`, `sign-out`, `set-password`: who may sign in."""

import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from microfin.people.access import DISABLE, ENABLE, SET_PASSWORD, SIGN_OUT, end_all_sessions
from microfin.people.identity import Unfit, read_email
from microfin.postgres.connections import Pool
from microfin.process.settings import ApiSettings, CommonSettings
from microfin.redis.ended_channel import say_ended
from microfin.redis.guarded import GuardedRedis
from microfin_tools.cli.failures import Refused, run
from microfin_tools.cli.output import Json, print_fields, print_json
from microfin_tools.cli.shards import administered_shards
from microfin_tools.cli.user import hash_of, read_password

Who = Annotated[
    str, typer.Argument(metavar="USER", help="The person's e-mail address, or the user's id.")
]
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def disable(who: Who, json: Json = False) -> None:
    """Forbid a user to sign in, and end all of the user's sessions.

    The accounts and their balances do not change. `microfin user enable` undoes it.

    \b
    Needs MICROFIN_DATABASES_DIRECT. With MICROFIN_REDIS the sessions end at once, without it
    within 65 seconds: the answer says which.
    """
    _show(run(_end_all(who, DISABLE)), json=json)


def sign_out(who: Who, json: Json = False) -> None:
    """End all sessions of a user, who can sign in again.

    \b
    Needs MICROFIN_DATABASES_DIRECT. With MICROFIN_REDIS the sessions end at once, without it
    within 65 seconds: the answer says which.
    """
    _show(run(_end_all(who, SIGN_OUT)), json=json)


def set_password(
    who: Who,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from stdin instead of asking."),
    ] = False,
    json: Json = False,
) -> None:
    """Give a user another password, and end all of the user's sessions.

    \b
    Needs MICROFIN_DATABASES_DIRECT; the password's cost is MICROFIN_ARGON2_…. With
    MICROFIN_REDIS the sessions end at once, without it within 65 seconds: the answer says which.
    """
    password_hash = hash_of(read_password(stdin=password_stdin), ApiSettings())
    _show(run(_end_all(who, SET_PASSWORD, password_hash)), json=json)


def enable(who: Who, json: Json = False) -> None:
    """Let a disabled user sign in again. Needs MICROFIN_DATABASES_DIRECT."""
    _show({"id": run(_enable(who))}, json=json)


def _show(fields: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(fields)
    else:
        print_fields(fields)


async def _enable(who: str) -> str:
    async with administered_shards(CommonSettings()) as pools:
        identity = await _find(pools[0], who)
        async with pools[0].acquire() as connection, connection.transaction():
            await connection.fetchval(ENABLE, identity)
    return identity.hex


async def _end_all(who: str, change: str, *values: str) -> dict[str, Any]:
    settings = CommonSettings()
    async with administered_shards(settings) as pools, _redis(settings) as redis:
        identity = await _find(pools[0], who)
        say = partial(say_ended, redis)
        ended = await end_all_sessions(pools[0], redis, say, identity.hex, change, values)
    if ended is None:
        raise _unknown(who)
    seconds = ended.effective_within
    effective = f"within {seconds} seconds" if seconds else "at once"
    return {"id": identity.hex, "ended_sessions": ended.sessions, "effective": effective}


@contextlib.asynccontextmanager
async def _redis(settings: CommonSettings) -> AsyncIterator[GuardedRedis]:
    redis = GuardedRedis(settings)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.close()


async def _find(pool: Pool, who: str) -> uuid.UUID:
    as_id = who.strip().lower().replace("-", "")
    try:
        forms = read_email(who)
    except Unfit:
        forms = ()
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        rows: Sequence[Any] = await connection.fetch(
            "SELECT id FROM users WHERE email = ANY ($1::text[]) OR id = $2 LIMIT 2",
            list(forms),
            uuid.UUID(as_id) if _ID.fullmatch(as_id) else None,
        )
    if len(rows) != 1:
        raise _unknown(who)
    found: uuid.UUID = rows[0]["id"]
    return found


def _unknown(who: str) -> Refused:
    return Refused(f"There is no user {who}: give the e-mail address or the id.")
