"""Answers on their way from a worker to the API process that waits for them.

They travel over Redis sharded pub/sub, one message for each batch and API process, and may be lost:
the waiting API then finds the outcome in PostgreSQL. A message carries the workers' seal
(`microfin.redis.seal`), also over its channel: somebody else who can publish in Redis must not be
able to make the API answer something that has not happened. A message without the seal only makes
the API look the operation up.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from microfin.ledger.operation import Operation
from microfin.ledger.records import Answer
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import Seal, shared_seal


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The reply to one waiting request.

    A status of `in_transit` means: look the operation up. `refused` means that the operation's id
    is known with another body.
    """

    request: str
    operation: Operation
    replayed: bool = False
    refused: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Reply]).decode


class Heard(msgspec.Struct, frozen=True):
    """The replies of a message, and whether its seal proves that a worker sent it."""

    replies: list[Reply]
    proven: bool


def reply_seal(secret: str) -> Seal | None:
    """Return the seal of replies, made from the secret that workers and API share."""
    return shared_seal(secret, "replies")


def message_of(channel: str, replies: list[Reply], seal: Seal | None) -> bytes:
    """Return the message that carries `replies`; they are at least one."""
    encoded = _encode(replies)
    if seal is None:
        return encoded
    return b"[" + seal.close(
        channel.encode(), encoded[1:]
    )  # seals the first object and all after it


def read_message(channel: str, message: bytes, seal: Seal | None) -> Heard:
    """Return the content of a message on `channel`. Raises `msgspec.MsgspecError` without one."""
    opened = None if seal is None else seal.open(channel.encode(), message[1:])
    if opened is None:
        return Heard(_decode(message), proven=False)
    return Heard(_decode(b"[" + opened), proven=True)


def channel_of(instance: str) -> str:
    """Return the channel on which the API process `instance` listens."""
    return f"replies:{instance}"


def reply_address(instance: str, request: str) -> str:
    """Return the value of a command's `reply` with which the answer finds `request`."""
    return f"{instance}/{request}"


class RedisReplies:
    """The worker's end of the reply channels."""

    def __init__(self, redis: GuardedRedis, seal: Seal | None) -> None:
        self._redis = redis
        self._seal = seal

    async def send(self, answers: Sequence[Answer]) -> None:
        """Send each answer to the API process that waits for it. Never fails: the API looks lost
        answers up.
        """
        by_instance: dict[str, list[Reply]] = defaultdict(list)
        for answer in answers:
            instance, _, request = answer.reply.partition("/")
            by_instance[instance].append(
                Reply(request, answer.operation, answer.replayed, answer.refused)
            )
        if len(by_instance) == 1:  # needs no task
            [(instance, replies)] = by_instance.items()
            await self._publish(instance, replies)
            return
        await asyncio.gather(
            *(self._publish(instance, replies) for instance, replies in by_instance.items())
        )

    async def _publish(self, instance: str, replies: list[Reply]) -> None:
        channel = channel_of(instance)
        try:
            await self._redis.publish(channel, message_of(channel, replies, self._seal))
        except RedisUnavailable:
            return
