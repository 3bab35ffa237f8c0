"""The memory of sessions: bounded, and believed only while no ended session can be in it."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Self

import pytest

from microfin.redis.ended_channel import (
    ASKED_AGAIN_SECONDS,
    HEARD_SECONDS,
    KNOWN_SECONDS,
    MOST_HASHES,
    Beat,
    Ended,
    Heard,
    decode,
    encode,
    ended_message,
)
from microfin.redis.guarded import RedisUnavailable
from microfin_api.people.membership import Flooded, Membership
from microfin_api.people.session_cache import Session
from microfin_api.people.session_memory import Reading, SessionMemory

SECRET = "the secret of all API processes"
SOMEBODY = Session("somebody", 2**40)
HASH = b"h" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Node:
    """The node of the channel: it puts all messages in one order."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []


class Subscription:
    """What has not yet come from the node, in order; nothing comes any more once it is lost."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._next = len(node.messages)
        self.lost = False

    async def next(self) -> bytes | None:
        return self.take()

    def take(self) -> bytes | None:
        if self.lost or self._next >= len(self._node.messages):
            return None
        self._next += 1
        return self._node.messages[self._next - 1]

    async def publish(self, payload: bytes, *_: object) -> None:
        if self.lost:
            raise RedisUnavailable("lost")
        self._node.messages.append(payload)


class Process:
    """An API process: its memory and its place on the channel."""

    def __init__(self, name: str, node: Node, clock: Clock, most: int = 100) -> None:
        self.name = name.encode().ljust(8)
        self._node, self._clock = node, clock
        self.memory = SessionMemory(most, clock)
        self.subscription = Subscription(node)
        self.reads: list[tuple[bytes, Reading, bool]] = []
        self.member = self.join()

    def join(self) -> Membership:
        self.subscription.lost = True
        self.memory.stop_listening()
        self.subscription = Subscription(self._node)
        self.member = Membership(self.name, SECRET, self.subscription, self.memory, self._clock)
        return self.member

    def take(self) -> None:
        payload = self.subscription.take()
        if payload is not None:
            self.member.take(payload)

    async def hear_all(self) -> Self:
        """Beat, and take everything that has come."""
        await self.member.beat()
        await self.member.hear()
        return self

    def keep(self, token_hash: bytes = HASH, seconds: float = 60) -> None:
        self.memory.keep(token_hash, SOMEBODY, seconds, self.memory.begin())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def process(node: Node, clock: Clock) -> Process:
    return await Process("one", node, clock).hear_all()


async def test_what_was_read_is_remembered_for_some_seconds(process: Process, clock: Clock) -> None:
    process.keep()
    process.keep(b"s" * 32, seconds=0.5)
    assert process.memory.get(HASH) == SOMEBODY
    clock.now += 0.6
    assert process.memory.get(HASH) == SOMEBODY
    assert process.memory.get(b"s" * 32) is None
    clock.now += ASKED_AGAIN_SECONDS
    await process.hear_all()
    assert process.memory.get(HASH) is None


async def test_a_process_that_does_not_hear_itself_believes_nothing(
    process: Process, clock: Clock
) -> None:
    process.keep()
    clock.now += HEARD_SECONDS
    assert process.memory.get(HASH) is None
    await process.hear_all()
    assert process.memory.get(HASH) == SOMEBODY


async def test_a_beat_counts_from_when_it_was_sent(process: Process, clock: Clock) -> None:
    """A process that was stopped, or far away, hears its beat late, and an end later still."""
    process.keep()
    await process.member.beat()
    clock.now += HEARD_SECONDS
    await process.member.hear()
    assert process.memory.get(HASH) is None


async def test_a_beat_of_another_or_a_forged_one_does_not_count(
    process: Process, clock: Clock
) -> None:
    process.keep()
    clock.now += HEARD_SECONDS
    for name, number in ((b"another ", 1), (process.name, 1), (process.name, 7)):
        process.member.take(encode(Beat(name, number)))
    assert process.memory.get(HASH) is None


async def test_an_ended_session_is_forgotten(process: Process) -> None:
    process.keep()
    process.keep(b"o" * 32)
    process.member.take(encode(ended_message([HASH])))
    assert process.memory.get(HASH) is None
    assert process.memory.get(b"o" * 32) == SOMEBODY


async def test_what_was_being_read_when_a_session_ended_is_not_kept(process: Process) -> None:
    reading = process.memory.begin()
    process.member.take(encode(ended_message([HASH])))
    process.memory.keep(HASH, SOMEBODY, 60, reading)
    assert process.memory.get(HASH) is None


async def test_nothing_is_kept_over_a_lost_subscription(process: Process) -> None:
    reading = process.memory.begin()
    process.keep()
    process.join()
    unheard = process.memory.begin()
    await process.hear_all()
    for before in (reading, unheard):
        process.memory.keep(HASH, SOMEBODY, 60, before)
        assert process.memory.get(HASH) is None
    process.keep()
    assert process.memory.get(HASH) == SOMEBODY


@pytest.mark.parametrize("payload", [b"", b"Z", b"E", b"E" + b"x" * 9, b"B12", b"H" + b"x" * 25])
async def test_a_message_that_nobody_knows_makes_it_forget(
    process: Process, payload: bytes
) -> None:
    assert decode(payload) is None
    process.keep()
    process.member.take(payload)
    assert process.memory.get(HASH) is None
    process.keep()
    assert process.memory.get(HASH) == SOMEBODY


def test_messages_are_read_as_they_were_written() -> None:
    for message in (
        Ended(b"i" * 8, [HASH] * MOST_HASHES),
        Beat(b"p" * 8, 2**40),
        Heard(b"p" * 8, [b"i" * 8] * MOST_HASHES, b"m" * 16),
    ):
        assert decode(encode(message)) == message
    assert decode(encode(Ended(b"i" * 8, [HASH] * (MOST_HASHES + 1)))) is None


async def test_the_memory_is_bounded(node: Node, clock: Clock) -> None:
    process = await Process("small", node, clock, most=10).hear_all()
    for number in range(50):
        process.keep(b"%032d" % number)
    assert len(process.memory) == 10
    assert process.memory.get(b"%032d" % 49) == SOMEBODY
    assert process.memory.get(b"%032d" % 39) is None


async def test_a_flood_is_not_listened_to(process: Process, node: Node) -> None:
    for payload in (encode(ended_message([HASH])), b"Z" * 10**6):
        node.messages.extend([payload] * 1_000)
        with pytest.raises(Flooded):
            await process.member.hear()
        process.join()


async def until_said(saying: "asyncio.Task[None]", *others: Process) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
        for other in others:
            await other.member.hear()
    assert saying.done()


async def test_an_end_is_known_when_all_have_heard_it(
    process: Process, node: Node, clock: Clock
) -> None:
    other = await Process("other", node, clock).hear_all()
    clock.now += HEARD_SECONDS
    for each in (process, other, process):
        await each.hear_all()
    other.keep()
    saying = asyncio.create_task(process.member.say([HASH]))
    await asyncio.sleep(0)
    await process.member.hear()
    forged = Heard(other.name, [decode_ended(node).identity], b"f" * 16)
    await process.subscription.publish(encode(forged))
    await process.member.hear()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not saying.done()  # the other one still believes its memory
    await until_said(saying, other, process)
    assert other.memory.get(HASH) is None


def decode_ended(node: Node) -> Ended:
    """Return the last end that was said."""
    for payload in reversed(node.messages):
        message = decode(payload)
        if isinstance(message, Ended):
            return message
    raise AssertionError("nobody has said an end")


async def test_nobody_is_waited_for_who_cannot_believe(
    process: Process, node: Node, clock: Clock
) -> None:
    other = await Process("other", node, clock).hear_all()
    await process.member.hear()
    clock.now += 2 * HEARD_SECONDS
    await process.hear_all()
    saying = asyncio.create_task(process.member.say([HASH]))
    await until_said(saying, process)
    assert other.memory.get(HASH) is None


class Model:
    """Some processes, one node, and what is true: which sessions there are, and which ends are
    known. Each step is drawn; messages, replies and beats arrive whenever they are drawn."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._clock, self._node = Clock(), Node()
        self._processes = [Process(f"p{n}", self._node, self._clock) for n in range(3)]
        self._live: set[bytes] = set()
        self._ended: dict[bytes, tuple[asyncio.Task[None] | None, float]] = {}
        self._acts: list[Callable[[Process], Awaitable[None]]] = [
            *[self._pass_time, self._beat, self._open, self._begin, self._finish] * 3,
            *[self._hear, self._look] * 6,
            self._end,
            self._lose,
        ]
        self.accepted = 0

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self._draw.choice(self._acts)(self._draw.choice(self._processes))
            await asyncio.sleep(0)
            self._check()
        for saying, _ in self._ended.values():
            if saying is not None:
                saying.cancel()

    def _check(self) -> None:
        for token_hash, (saying, published) in self._ended.items():
            answered = saying is not None and saying.done()
            if answered or self._clock.now >= published + KNOWN_SECONDS:
                for process in self._processes:
                    assert process.memory.get(token_hash) is None

    async def _pass_time(self, _: Process) -> None:
        self._clock.now += self._draw.choice([0.01, 0.1, 0.4, HEARD_SECONDS])

    async def _beat(self, process: Process) -> None:
        await process.member.beat()

    async def _hear(self, process: Process) -> None:
        for _ in range(self._draw.randrange(8)):
            process.take()

    async def _open(self, _: Process) -> None:
        if len(self._live) < 4:
            self._live.add(self._draw.randbytes(32))

    async def _begin(self, process: Process) -> None:
        """Begin to read: Redis answers with what is true now, and its answer comes later."""
        for token_hash in [*self._live, *self._ended]:
            reading = process.memory.begin()
            process.reads.append((token_hash, reading, token_hash in self._live))

    async def _finish(self, process: Process) -> None:
        reads, process.reads = process.reads, []
        for token_hash, reading, valid in reads:
            if valid:
                process.memory.keep(token_hash, SOMEBODY, 60, reading)

    async def _look(self, process: Process) -> None:
        self.accepted += sum(process.memory.get(it) is not None for it in self._live)

    async def _end(self, process: Process) -> None:
        """End a session: the tombstone is there before the message."""
        if not self._live:
            return
        token_hash = self._draw.choice(sorted(self._live))
        self._live.remove(token_hash)
        saying = None
        if self._draw.random() < 0.8:
            saying = asyncio.create_task(process.member.say([token_hash]))
            await asyncio.sleep(0)
        else:  # a command, which does not listen
            self._node.messages.append(encode(ended_message([token_hash])))
        self._ended[token_hash] = (saying, self._clock.now)

    async def _lose(self, process: Process) -> None:
        process.join()


async def test_no_ended_session_is_accepted_in_any_order_of_events() -> None:
    accepted = 0
    for seed in range(150):
        model = Model(seed)
        with contextlib.suppress(asyncio.CancelledError):
            await model.run(400)
        accepted += model.accepted
    assert accepted > 1_000  # the memory is of use, too
