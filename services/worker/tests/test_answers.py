"""Publishing a batch: no answer before the copies that a reader of the release before believes."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from microfin.ledger.operation import Operation
from microfin.ledger.records import Account, Answer, Decisions
from microfin.redis.account_cache import CachedAccount
from microfin_worker.answers import Answers
from microfin_worker.phases import BatchPhases
from microfin_worker.ports import Cache
from support.clocks import HandClock

NUMBER = "100000000008"
OWNER = "0" * 32


class Redis:
    """The cache and the replies; keeps every put until the test lets it go."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.done: list[str] = []
        self.open = asyncio.Event()
        self._fault = fault

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        numbers = [account.number for account in accounts]
        await self.open.wait()
        if self._fault is not None:
            raise self._fault
        self.done += [f"put {number}" for number in numbers]

    async def send(self, answers: Sequence[Answer]) -> None:
        self.done += [f"answer {answer.reply}" for answer in answers]


def decided(reply: str) -> Decisions:
    account = Account(
        number=NUMBER, owner=OWNER, currency="EUR", balance=5, state="open", seq=1, version=2
    )
    operation = Operation(
        operation="1" * 32,
        kind="deposit",
        status="settled",
        account=NUMBER,
        time=1,
    )
    decisions = Decisions.none()
    decisions.accounts[NUMBER] = account
    if reply:
        decisions.answers.append(Answer(reply, operation))
    return decisions


async def publish(redis: Redis, cache: Cache | None, *replies: str) -> Answers:
    answers = Answers(redis, cache)
    for reply in replies:
        await answers.publish(decided(reply), BatchPhases(HandClock()))
    return answers


async def test_an_answer_waits_for_the_copy_of_its_account() -> None:
    redis = Redis()
    answers = await publish(redis, redis, "one")
    for _ in range(5):
        await asyncio.sleep(0)
    assert redis.done == []
    redis.open.set()
    await answers.finish()
    assert redis.done == [f"put {NUMBER}", "answer one"]


async def test_without_readers_of_copies_an_answer_waits_for_nothing() -> None:
    redis = Redis()
    answers = await publish(redis, None, "one", "two")
    await answers.finish()
    assert redis.done == ["answer one", "answer two"]


async def test_a_batch_that_answers_nobody_is_still_copied() -> None:
    """Such as a credit: its account has readers as well."""
    redis = Redis()
    redis.open.set()
    answers = await publish(redis, redis, "")
    await answers.finish()
    assert redis.done == [f"put {NUMBER}"]


async def test_a_failure_ends_with_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    redis = Redis(OSError("planted"))
    redis.open.set()
    answers = await publish(redis, redis, "one")
    await answers.publish(decided("two"), BatchPhases(HandClock()))
    await answers.finish()
    assert redis.done == []  # the API looks up what was lost
