"""Redis: channels on which replies are lost, repeated or late, and a cache that may fail."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from microfin.redis.guarded import RedisUnavailable
from simulation.network import Network


class Channels:
    """Who listens on which channel."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.listeners: defaultdict[str, list[Listener]] = defaultdict(list)

    def deliver(self, channel: str, payload: bytes) -> None:
        """Give a message to all who listen."""
        for listener in self.listeners[channel]:
            listener.hear(payload)


class Listener:
    """One subscription."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._heard = asyncio.Event()

    def hear(self, payload: bytes) -> None:
        """Receive a message."""
        self._messages.append(payload)
        self._heard.set()

    async def next(self) -> bytes:
        """Wait for the next message."""
        while not self._messages:
            self._heard.clear()
            await self._heard.wait()
        return self._messages.popleft()


class SimulatedRedis:
    """What of `microfin.redis.guarded.GuardedRedis` is used on the way of money."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def publish(self, channel: str, payload: bytes) -> None:
        """Send a message, which may arrive or not."""
        network = self._channels.network
        for delay in network.reply_delays():
            network.loop.later(delay, self._channels.deliver, channel, payload)

    async def subscribe(self, channel: str) -> AsyncIterator[bytes]:
        """Give all messages of `channel` from now on."""
        listener = Listener()
        self._channels.listeners[channel].append(listener)
        while True:
            yield await listener.next()

    async def evaluate(self, _script: Any, _calls: Iterable[Any]) -> None:
        """Cache accounts, or fail."""
        if self._channels.network.cache_lies():
            await asyncio.sleep(0.25)
            raise RedisUnavailable("simulated")
