"""One subscription of this process to the channel of ended sessions: what it hears and says there.

`microfin.redis.ended_channel` describes the messages.
"""

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

from microfin.redis.ended_channel import (
    HEARD_SECONDS,
    KNOWN_SECONDS,
    LISTENED,
    LISTENED_SECONDS,
    MOST_HASHES,
    NOBODY,
    PROOF_BYTES,
    Beat,
    Ended,
    Heard,
    batches,
    decode,
    encode,
    ended_message,
)
from microfin.redis.guarded import RedisUnavailable
from microfin.redis.node import Command
from microfin_api.people.listeners import Listeners
from microfin_api.people.session_memory import SessionMemory

_MOST_WORK: Final = 400
"""Messages between two beats, above which somebody floods the channel."""
_LENGTH_OF_ONE: Final = 512  # bytes; a longer message counts as several
_MOST_UNDER_WAY: Final = 8  # beats of ours that have not come back


class Flooded(Exception):
    """More messages come than processes say: not to listen is better than to do nothing else."""


class Channel(Protocol):
    """A subscription, and a way to publish in the order in which it is heard."""

    async def next(self) -> bytes | None:
        """Return the next message, None when no more will come."""

    async def publish(self, payload: bytes, *before: Command) -> None:
        """Publish, after some commands. Raises `RedisUnavailable` if the node does not."""


class Membership:
    """This process on the channel, from one subscription to its end."""

    def __init__(
        self,
        process: bytes,
        secret: str,
        channel: Channel,
        memory: SessionMemory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._key = blake2b(secret.encode(), digest_size=32).digest()
        self._channel = channel
        self._memory = memory
        self._clock = clock
        self._listeners: Listeners | None = None  # until the first beat has come back
        self._number = 0
        self._beats: dict[int, float] = {}
        self._said: dict[bytes, asyncio.Future[None]] = {}
        self._unanswered: list[bytes] = []
        self._answering: asyncio.Task[None] | None = None
        self._work = 0

    @property
    def joined(self) -> bool:
        """Whether we have heard ourselves, and so hear the others."""
        return self._listeners is not None

    async def hear(self) -> None:
        """Take every message until the subscription ends. Raises `Flooded`."""
        while (payload := await self._channel.next()) is not None:
            self._work += 1 + len(payload) // _LENGTH_OF_ONE
            if self._work > _MOST_WORK:
                raise Flooded
            self.take(payload)

    async def beat(self) -> None:
        """Send a beat. If it comes back, we have heard all that was said until now."""
        self._work = 0
        self._number += 1
        self._beats[self._number] = self._clock()
        if len(self._beats) > _MOST_UNDER_WAY:
            del self._beats[next(iter(self._beats))]
        with contextlib.suppress(RedisUnavailable):
            await self._channel.publish(
                encode(Beat(self._process, self._number)),
                ("SET", LISTENED, b"1", "EX", LISTENED_SECONDS),
            )

    async def say(self, token_hashes: Sequence[bytes]) -> None:
        """Say that sessions have ended, and wait until no process accepts them: until all have
        heard it, or do not believe their memories any more.

        Raises `RedisUnavailable` if Redis does not take the message.
        """
        messages = [ended_message(some) for some in batches(token_hashes)]
        loop = asyncio.get_running_loop()
        said = {message.identity: loop.create_future() for message in messages}
        self._said.update(said)
        try:
            for message in messages:
                await self._channel.publish(encode(message))
            await asyncio.wait(said.values(), timeout=KNOWN_SECONDS)
        finally:
            for identity in said:
                del self._said[identity]
                if self._listeners is not None:
                    self._listeners.forget(identity)

    def take(self, payload: bytes) -> None:
        """Take one message."""
        message = decode(payload)
        match message:
            case Beat(process, number) if process == self._process:
                self._take_own_beat(number)
            case Beat(process):
                if self._listeners is not None:
                    self._listeners.beat(process, self._clock())
            case Ended(identity, token_hashes):
                self._memory.forget(token_hashes)
                self._note_end(identity)
            case Heard():
                self._take_answer(message)
            case None:  # a newer release knows what it means, and it may be an end
                self._memory.forget_all()

    def _take_own_beat(self, number: int) -> None:
        sent = self._beats.pop(number, None)
        if sent is None:  # not ours, or an old one
            return
        if self._listeners is None:
            self._listeners = Listeners(self._process, self._clock())
            self._memory.listen()
        self._memory.hear_until(sent + HEARD_SECONDS)

    def _note_end(self, identity: bytes) -> None:
        said = self._said.get(identity)
        if said is None:
            if identity != NOBODY:
                self._answer(identity)
        elif self._listeners is not None and self._listeners.end(identity, self._clock()):
            _finish(said)

    def _answer(self, identity: bytes) -> None:
        """Say that we have heard a message, with others that come until the last answer is out."""
        if len(self._unanswered) < MOST_HASHES:  # else its sender waits until its time is over
            self._unanswered.append(identity)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._send_answers())

    async def _send_answers(self) -> None:
        while self._unanswered:
            identities, self._unanswered = self._unanswered, []
            answer = Heard(self._process, identities, self._proof(self._process, identities))
            try:
                await self._channel.publish(encode(answer))
            except RedisUnavailable:
                return

    def _take_answer(self, heard: Heard) -> None:
        """Believe an answer by its proof: a forged one would end somebody's wait too early."""
        ours = [it for it in heard.identities if it in self._said]
        if not ours or self._listeners is None:
            return
        if hmac.compare_digest(heard.proof, self._proof(heard.process, heard.identities)):
            for identity in ours:
                if self._listeners.heard(heard.process, identity):
                    _finish(self._said[identity])

    def _proof(self, process: bytes, identities: Sequence[bytes]) -> bytes:
        return blake2b(
            b"".join((process, *identities)),
            key=self._key,
            person=b"sessions-ended",
            digest_size=PROOF_BYTES,
        ).digest()


def _finish(said: asyncio.Future[None]) -> None:
    if not said.done():
        said.set_result(None)
