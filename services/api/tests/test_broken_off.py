"""A request that breaks off after its command was sent is never answered by "nothing was done"."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from microfin.kafka.producer import Appended, CommandProducer, Headers
from microfin.ledger.operation import operation_id
from microfin.ledger.wire import Command
from microfin.redis.guarded import RedisUnavailable
from support.api_under_test import Api, Ledger, User, running
from support.waiting import until

ERRORS = [
    TimeoutError(),
    ConnectionResetError("reset"),
    asyncpg.AdminShutdownError("terminating connection"),
    asyncpg.UniqueViolationError("planted"),
    RedisUnavailable("planted"),
    RuntimeError("planted"),
]
AWAITED = ["submission._answer", "gate.until_order_is_certain"]
FAULTS = [
    *((place, error) for place in AWAITED for error in (*ERRORS, asyncio.CancelledError())),
    *(("at_tokens.location", error) for error in ERRORS),
]


def name_of(parameter: str | BaseException) -> str:
    return parameter if isinstance(parameter, str) else type(parameter).__name__


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def breaking(ledger: Ledger) -> AsyncIterator[Api]:
    async with running(ledger.settings(unknown_after=4.0)) as api:
        yield api


@pytest_asyncio.fixture
async def owner(breaking: Api) -> AsyncIterator[User]:
    user = await breaking.user()
    yield user
    await user.client.aclose()


async def deposit(user: User, number: str, key: str, prefer: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key, **({"Prefer": prefer} if prefer else {})}
    body = {"accountNumber": number, "amount": "5"}
    return await user.client.post("/api/deposit", json=body, headers=headers)


async def until_settled(user: User, number: str) -> None:
    async def is_settled() -> bool:
        return await user.balance(number) == "5.00"

    await until("the deposit settles", is_settled)


async def check_unknown(user: User, number: str, key: str, answer: httpx.Response) -> None:
    """Check that the answer says nothing that is not so, and that its key is good for a repeat."""
    assert (answer.status_code, answer.json()["code"]) == (503, "unknown"), answer.text
    problem = answer.json()
    assert problem["operationId"] == operation_id(user.id, key, "deposit", number)
    assert problem["operationStatus"] == "unknown"
    assert problem["idempotencyKey"] == answer.headers["idempotency-key"] == key
    assert answer.headers["retry-after"]
    await until_settled(user, number)
    shown = await user.client.get(f"/api/operations/{problem['operationId']}")
    assert shown.json()["status"] == "settled"


def fail_at(api: Api, place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _, name = place.partition(".")
    service = getattr(api.services, owner)
    real: Callable[..., Any] = getattr(service, name)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    async def fail_later(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)
        raise error

    broken = fail_later if asyncio.iscoroutinefunction(real) else fail
    monkeypatch.setattr(service, name, broken)


@pytest.mark.parametrize(("place", "error"), FAULTS, ids=name_of)
async def test_an_error_after_sending_is_unknown(
    breaking: Api,
    owner: User,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: BaseException,
) -> None:
    number = await owner.account()
    fail_at(breaking, place, error, monkeypatch)
    answer = await deposit(owner, number, f"{place} {error!r}", "respond-async")
    await check_unknown(owner, number, f"{place} {error!r}", answer)


async def test_an_error_in_reporting_the_outcome_is_unknown(
    owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await owner.account()

    def fail(*_: Any) -> None:
        raise KeyError("planted")

    monkeypatch.setattr("microfin_api.endpoints.change.settled_view", fail)
    await check_unknown(owner, number, "telling", await deposit(owner, number, "telling"))


class SlowProducer:
    """Sends when the test lets it, and then raises the error that it was given, if any."""

    def __init__(self, producer: CommandProducer, error: Exception | None = None) -> None:
        self.asked = asyncio.Event()
        self.sending = asyncio.Event()
        self._producer = producer
        self._error = error

    async def send(self, partition: int, command: Command, headers: Headers = ()) -> Appended:
        self.asked.set()
        await self.sending.wait()
        appended = await self._producer.send(partition, command, headers)
        if self._error is not None:
            raise self._error
        return appended


@pytest.mark.parametrize("prefer", ["", "respond-async"])
async def test_the_longest_time_over_after_sending_is_unknown(
    breaking: Api, owner: User, monkeypatch: pytest.MonkeyPatch, prefer: str
) -> None:
    number = await owner.account()
    slow = SlowProducer(breaking.services.producer)
    monkeypatch.setattr(breaking.services.submission, "_producer", slow)
    monkeypatch.setattr("microfin_api.app.LONGEST_SECONDS", 0.5)
    answer = await deposit(owner, number, f"late{prefer}", prefer)
    slow.sending.set()
    await check_unknown(owner, number, f"late{prefer}", answer)


async def test_a_cancelled_request_is_answered_as_unknown(
    breaking: Api, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await owner.account()
    slow = SlowProducer(breaking.services.producer)
    monkeypatch.setattr(breaking.services.submission, "_producer", slow)
    asking = asyncio.create_task(deposit(owner, number, "cancelled"))
    await slow.asked.wait()
    asking.cancel()
    answer = await asking
    slow.sending.set()
    await check_unknown(owner, number, "cancelled", answer)


async def test_an_unforeseen_error_of_the_producer_leaves_the_outcome(
    breaking: Api, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await owner.account()
    slow = SlowProducer(breaking.services.producer, RuntimeError("planted"))
    slow.sending.set()
    monkeypatch.setattr(breaking.services.submission, "_producer", slow)
    answer = await deposit(owner, number, "unforeseen")
    assert (answer.status_code, answer.json()["balance"]) == (200, "5.00")
