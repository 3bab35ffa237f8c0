"""Listens for ended sessions, so that the memory of sessions can be believed.

A process listens while its sessions are used often enough to be worth it, and beats on the
channel meanwhile (`microfin.redis.ended_channel` says why). A quiet process leaves the channel and
wakes up for nothing. Its requests ask Redis, as all do while the memory is not believed.

Anybody who can publish in Redis can make this process forget sessions, which costs a look-up. If
too much is published, it does not listen for a while.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Final

import structlog

from microfin.process.settings import ApiSettings
from microfin.redis.ended_channel import (
    CHANNEL,
    KNOWN_SECONDS,
    PROCESS_BYTES,
    nobody_listens,
    tell_ended,
)
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin_api.people.membership import Flooded, Membership
from microfin_api.people.session_memory import SessionMemory

logger = structlog.get_logger(__name__)

_BEAT: Final = 0.4  # seconds between two beats: a late one does not end the belief
_WORTH_IT: Final = 5  # sessions used in a second for which we listen; half as many keep us
_QUIET_BEATS: Final = 25  # beats with fewer, after which we leave the channel: 10 s
_FIRST_PAUSE: Final = 0.2  # seconds before we listen again after a loss; doubled each time
_LONGEST_PAUSE: Final = 10.0
_STOP_SECONDS: Final = 1.0


class EndedSessions:
    """Lets `memory` know which sessions have ended, and the other processes which ones we end."""

    def __init__(self, settings: ApiSettings, redis: GuardedRedis, memory: SessionMemory) -> None:
        self._secret = settings.secret
        self._redis = redis
        self._memory = memory
        self._process = secrets.token_bytes(PROCESS_BYTES)
        self._in_use = asyncio.Event()
        self._uses = 0
        self._counted_from = 0.0
        self._pause = _FIRST_PAUSE
        self._member: Membership | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to listen, as soon as a session is used."""
        self._task = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_STOP_SECONDS)

    def use(self) -> None:
        """Note that a session is used: many make listening worth its while."""
        self._uses += 1
        if self._member is None:
            self._count()

    def _count(self) -> None:
        now = time.monotonic()
        if now - self._counted_from > 1:
            self._counted_from, self._uses = now, 1
        if self._uses >= _WORTH_IT:
            self._in_use.set()

    async def say(self, token_hashes: Sequence[bytes]) -> bool:
        """Tell all API processes that these sessions have ended, and wait until none accepts them.

        That takes a round trip to each of them, and `KNOWN_SECONDS` if one does not answer. Returns
        False, without waiting, if Redis does not take the message.
        """
        self._memory.forget(token_hashes)
        if self._member is not None and token_hashes:
            with contextlib.suppress(RedisUnavailable):
                await self._member.say(token_hashes)
                return True
        if not token_hashes:
            return True
        if not await tell_ended(self._redis, token_hashes):
            return False
        if not await nobody_listens(self._redis):
            self._in_use.set()  # so that the next one need not wait
            await asyncio.sleep(KNOWN_SECONDS)
        return True

    async def tell(self, token_hashes: Sequence[bytes]) -> None:
        """Tell all API processes the same, and wait for none."""
        self._memory.forget(token_hashes)
        await tell_ended(self._redis, token_hashes)

    async def _listen_for_ever(self) -> None:
        while True:
            await self._in_use.wait()
            self._in_use.clear()
            try:
                await self._listen()
                continue
            except RedisUnavailable as error:
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                logger.warning("sessions are not remembered for now", error=str(error))
            except Flooded:
                self._pause = _LONGEST_PAUSE
                logger.warning(
                    "too many messages of ended sessions: sessions are not remembered for now",
                    advice="Who else may publish in Redis?",
                )
            except Exception:
                self._pause = _LONGEST_PAUSE
                logger.exception("could not listen for ended sessions")
            await asyncio.sleep(self._pause)

    async def _listen(self) -> None:
        """Listen until nobody needs it. Raises `RedisUnavailable` or `Flooded`."""
        async with self._redis.listen(CHANNEL) as listening:
            member = Membership(self._process, self._secret, listening, self._memory)
            beating = asyncio.create_task(self._beat(member))
            hearing = asyncio.create_task(member.hear())
            self._member = member
            try:
                await asyncio.wait({beating, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if member.joined:
                    self._pause = _FIRST_PAUSE
                self._member = None
                self._memory.stop_listening()
                for task in (beating, hearing):
                    task.cancel()
        if hearing.done() and not hearing.cancelled():
            hearing.result()
            raise RedisUnavailable("the subscription to the channel was lost")
        beating.result()

    async def _beat(self, member: Membership) -> None:
        """Beat until few sessions have been used for a while."""
        quiet = 0
        while quiet < _QUIET_BEATS:
            self._uses = 0
            await member.beat()
            await asyncio.sleep(_BEAT)
            quiet = quiet + 1 if self._uses < _WORTH_IT * _BEAT / 2 else 0
