"""What processes say about ended sessions on the sharded channel `sessions-ended`.

An API process answers from a memory of sessions, which must not outlive them. So every process
that ends sessions says it here. Three kinds of message:

- *ended*: the hashes of sessions that have ended, under an id of the message, which is `NOBODY`
  where nobody waits for an answer.
- *beat*: sent by a process to itself. It comes back in order, after everything that the channel's
  node got before. So a process that hears its own beat has heard all that was said until it sent
  the beat, and may believe its memory until `HEARD_SECONDS` after that moment.
- *heard*: a process has heard some messages; nobody has to wait for it any longer.

A message that nobody knows makes a process forget its memory. Nobody is signed in by a message.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from microfin.redis.guarded import GuardedRedis, RedisUnavailable

CHANNEL: Final = "sessions-ended"

LISTENED: Final = "session:{sessions-ended}"
"""A key at the channel's node, set with each beat. It lives longer than anybody believes a memory
by that beat, so without it nobody has to be waited for."""

LISTENED_SECONDS: Final = 2

HEARD_SECONDS: Final = 1.0
"""How long a process believes its memory after it sent the last beat that has come back."""

KNOWN_SECONDS: Final = HEARD_SECONDS + 0.2
"""How long after a message every process has heard it or does not believe its memory. The clocks of
two machines do not run equally fast: hence the rest."""

ASKED_AGAIN_SECONDS: Final = 5
"""How long a process believes what it has read without asking Redis again, whatever it hears.

So an end of which only the tombstone is known is felt after this time. A process of the release
before ends sessions in this way.
"""

MOST_HASHES: Final = 200
"""Hashes in one message."""

NOBODY: Final = bytes(8)

PROCESS_BYTES: Final = 8
IDENTITY_BYTES: Final = 8
PROOF_BYTES: Final = 16
_HASH_BYTES: Final = 32
_ENDED, _BEAT, _HEARD = b"E", b"B", b"H"


class Ended(msgspec.Struct, frozen=True, gc=False):
    """These sessions have ended; `identity` names the message."""

    identity: bytes
    token_hashes: list[bytes]


class Beat(msgspec.Struct, frozen=True, gc=False):
    """The beat `number` of a process."""

    process: bytes
    number: int


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A process has heard the messages `identities`; `proof` shows that it is an API process."""

    process: bytes
    identities: list[bytes]
    proof: bytes


def encode(message: Ended | Beat | Heard) -> bytes:
    """Return the bytes of a message."""
    match message:
        case Ended(identity, token_hashes):
            return b"".join((_ENDED, identity, *token_hashes))
        case Beat(process, number):
            return b"".join((_BEAT, process, number.to_bytes(8)))
        case Heard(process, identities, proof):
            return b"".join((_HEARD, process, proof, *identities))


def decode(payload: bytes) -> Ended | Beat | Heard | None:
    """Return the message in these bytes, None if it is of no kind that we know."""
    rest = payload[1:]
    match payload[:1]:
        case b"E":
            hashes = _split(rest[IDENTITY_BYTES:], _HASH_BYTES)
            return None if hashes is None else Ended(rest[:IDENTITY_BYTES], hashes)
        case b"B" if len(rest) == PROCESS_BYTES + 8:
            return Beat(rest[:PROCESS_BYTES], int.from_bytes(rest[PROCESS_BYTES:]))
        case b"H":
            begin = PROCESS_BYTES + PROOF_BYTES
            identities = _split(rest[begin:], IDENTITY_BYTES)
            if identities is not None:
                return Heard(rest[:PROCESS_BYTES], identities, rest[PROCESS_BYTES:begin])
    return None


def ended_message(token_hashes: Sequence[bytes]) -> Ended:
    """Return a new message of ended sessions, of which the sender waits for answers."""
    return Ended(secrets.token_bytes(IDENTITY_BYTES), list(token_hashes))


def batches(token_hashes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the hashes in parts of which each fits into one message."""
    for begin in range(0, len(token_hashes), MOST_HASHES):
        yield token_hashes[begin : begin + MOST_HASHES]


async def say_ended(redis: GuardedRedis, token_hashes: Sequence[bytes]) -> bool:
    """Say that sessions have ended, and wait until every API process knows or does not believe its
    memory. Return False, without waiting, if Redis did not take the message.
    """
    if not token_hashes:
        return True
    if not await tell_ended(redis, token_hashes):
        return False
    if not await nobody_listens(redis):
        await asyncio.sleep(KNOWN_SECONDS)
    return True


async def tell_ended(redis: GuardedRedis, token_hashes: Sequence[bytes]) -> bool:
    """Say that sessions have ended, and wait for nobody; return whether Redis took the message."""
    try:
        for some in batches(token_hashes):
            await redis.publish(CHANNEL, encode(Ended(NOBODY, list(some))))
    except RedisUnavailable:
        return False
    return True


async def nobody_listens(redis: GuardedRedis) -> bool:
    """Return whether it is certain that no process believes its memory by an earlier beat."""
    try:
        return await redis.get(LISTENED) is None
    except RedisUnavailable:
        return False


def _split(joined: bytes, size: int) -> list[bytes] | None:
    """Return the parts of `size` bytes, at most `MOST_HASHES`; None where they do not fit."""
    if not joined or len(joined) % size or len(joined) > size * MOST_HASHES:
        return None
    return [joined[begin : begin + size] for begin in range(0, len(joined), size)]
