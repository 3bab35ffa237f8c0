"""Idempotency keys: which ones a client may send, and the note of what a key was used for.

The worker decides whether a repeat asks for the same (by the body's hash). It cannot see that a key
is reused for another account or another kind of operation: a note in Redis shows that for a day.
Without Redis such a reuse is simply another operation.
"""

import re
from typing import Final

import msgspec
from starlette.requests import Request

from microfin.ledger.operation import Kind
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin_api.http.problems import Problem
from microfin_api.uuid7 import uuid7

NOTE_SECONDS: Final = 24 * 60 * 60
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')  # sf-string of RFC 9651


class Key(msgspec.Struct, frozen=True):
    """An idempotency key: its text, how the header spells it, and whether the client chose it."""

    text: str
    header: str
    from_client: bool


def read_key(request: Request) -> Key:
    """Return the request's key, or a new one. Raises `Problem` for an invalid one."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        text = str(uuid7())
        return Key(text, text, from_client=False)
    header = sent[0].strip(" \t")
    text = header
    if header.startswith('"'):
        quoted = _QUOTED.fullmatch(header)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if len(sent) > 1 or not _PRINTABLE.fullmatch(text):
        raise Problem("invalid_idempotency_key")
    return Key(text, header, from_client=True)


async def refuse_other_use(
    redis: GuardedRedis, user: str, key: Key, kind: Kind, account: str
) -> None:
    """Note what `key` is used for. Raises `Problem` if it was noted for something else."""
    if not key.from_client:
        return
    use = f"{kind} {account}".encode()
    try:
        noted = await redis.remember_first(f"key:{user}:{key.text}", use, seconds=NOTE_SECONDS)
    except RedisUnavailable:
        return
    if noted != use:
        raise Problem("key_reused", headers={HEADER: key.header})
