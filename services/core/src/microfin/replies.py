"""Answers on their way from a worker to the API process that waits for them.

They travel over Redis sharded pub/sub, one message per batch and API process, and may be lost: the
waiting API then finds the outcome in PostgreSQL.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from microfin.decision import Answer
from microfin.operation import Operation
from microfin.redis_cluster import GuardedRedis, RedisUnavailable


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one waiting request is told.

    A status of `in_transit` means: look the operation up. `refused` means that the operation's id
    is known with another body.
    """

    request: str
    operation: Operation
    replayed: bool = False
    refused: bool = False


_encode = msgspec.json.Encoder().encode
decode_replies = msgspec.json.Decoder(list[Reply]).decode
"""Return the replies in a message of the channel."""


def channel_of(instance: str) -> str:
    """Return the channel on which the API process `instance` listens."""
    return f"replies:{instance}"


def reply_address(instance: str, request: str) -> str:
    """Return what a command's `reply` must say for the answer to find `request`."""
    return f"{instance}/{request}"


class RedisReplies:
    """The worker's end of the reply channels."""

    def __init__(self, redis: GuardedRedis) -> None:
        self._redis = redis

    async def send(self, answers: Sequence[Answer]) -> None:
        """Send each answer to where it is awaited. Never fails; what is lost is looked up."""
        by_instance: dict[str, list[Reply]] = defaultdict(list)
        for answer in answers:
            instance, _, request = answer.reply.partition("/")
            by_instance[instance].append(
                Reply(request, answer.operation, answer.replayed, answer.refused)
            )
        await asyncio.gather(
            *(self._publish(instance, replies) for instance, replies in by_instance.items())
        )

    async def _publish(self, instance: str, replies: list[Reply]) -> None:
        try:
            await self._redis.publish(channel_of(instance), _encode(replies))
        except RedisUnavailable:
            return
