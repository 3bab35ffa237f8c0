"""Answers before the outcome: 202 with its Location, and 503 if not even that is certain."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from microfin.kafka.producer import (
    Appended,
    CommandProducer,
    Headers,
    ProduceRefused,
    ProduceUnknown,
)
from microfin.ledger.operation import operation_id
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command
from microfin_api.commands.leases import Lease, ShardLease
from microfin_local.platform import Platform
from support.api_answers import ASYNC, finally_of, until_decided
from support.api_under_test import PARTITIONS, Api, Ledger, User, running
from support.waiting import until_true


@pytest_asyncio.fixture
async def quiet(platform: Platform, tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger whose workers the test stops and starts."""
    async with Ledger(platform, tmp_path) as ledger:
        yield ledger


async def test_a_slow_worker_makes_it_202(quiet: Ledger) -> None:
    async with running(quiet.settings(answer_within=0.3)) as api:
        user = await api.user()
        other = await api.user()
        number = await user.account(balance="1")
        await quiet.stop_workers()
        body, headers = {"accountNumber": number, "amount": "5"}, {"Idempotency-Key": "slow"}
        answer = await user.client.post("/api/deposit", json=body, headers=headers)
        assert answer.status_code == 202
        operation = operation_id(user.id, "slow", "deposit", number)
        assert answer.json() == {"operationId": operation, "status": "accepted"}
        assert answer.headers["idempotency-key"] == "slow"
        location = answer.headers["location"]
        assert location.startswith(f"/api/operations/{operation}?at=")

        # Nobody has decided it, yet with its `at` it is not missing; without, or for others, it is.
        assert (await user.client.get(location)).json()["status"] == "accepted"
        assert (await user.client.get(location.partition("?")[0])).status_code == 404
        assert (await user.client.get(f"{location}x")).status_code == 404
        assert (await other.client.get(location)).status_code == 404

        await quiet.start_workers()
        shown = await finally_of(user, location, "settled")
        assert (shown["balance"], shown["amount"]) == ("6.00", "5.00")
        assert (await other.client.get(location)).status_code == 404
        repeat = await user.client.post("/api/deposit", json=body, headers=headers)
        assert repeat.status_code == 200
        assert await user.balance(number) == "6.00"


async def test_a_client_may_prefer_202(user: User) -> None:
    number = await user.account(balance="10")
    other = await user.account()
    requests = [
        ("/api/deposit", {"accountNumber": number, "amount": "1"}),
        ("/api/withdraw", {"accountNumber": number, "amount": "1"}),
        (
            "/api/transfer",
            {"senderAccountNumber": number, "receiverAccountNumber": other, "amount": "1"},
        ),
        ("/api/accounts", {}),
    ]
    for path, body in requests:
        answer = await user.client.post(path, json=body, headers=ASYNC)
        assert answer.status_code == 202, answer.text
        assert answer.headers["preference-applied"] == "respond-async"
        await finally_of(user, answer.headers["location"], "settled")
    assert await user.balance(number) == "9.00"


@pytest.mark.parametrize("default", ["settled", "accepted"])
async def test_the_location_of_another_body_says_that_the_key_was_used(
    ledger: Ledger, default: str
) -> None:
    async with running(ledger.settings(answer=default)) as api:
        user = await api.user()
        number = await user.account()
        headers = {"Idempotency-Key": "once", **({} if default == "accepted" else ASYNC)}

        async def deposit(amount: str) -> httpx.Response:
            body = {"accountNumber": number, "amount": amount}
            return await user.client.post("/api/deposit", json=body, headers=headers)

        first = (await deposit("1")).headers["location"]
        assert (await finally_of(user, first, "settled"))["amount"] == "1.00"
        answers = []
        for _ in range(5):  # a worker may be quicker than the lease that a 202 waits for
            refused = await deposit("7")
            if refused.status_code == 202:
                refused = await until_decided(user, refused.headers["location"])
            answers.append((refused.status_code, refused.json()["code"]))
        assert answers == [(422, "key_reused")] * 5
        repeat = (await deposit("1.00")).headers["location"]
        # Also without an `at`, as a quick worker answers, and with one that is not ours.
        path, _, at = first.partition("?at=")
        for location in (first, repeat, path, f"{path}?at={at}x"):
            assert (await finally_of(user, location, "settled"))["amount"] == "1.00"
        assert await user.balance(number) == "1.00"


async def test_a_key_that_is_reused_before_its_operation_is_decided(quiet: Ledger) -> None:
    async with running(quiet.settings()) as api:
        user = await api.user()
        number = await user.account()
        await quiet.stop_workers()
        locations = []
        for amount in ("1", "7"):
            body = {"accountNumber": number, "amount": amount}
            headers = {**ASYNC, "Idempotency-Key": "once"}
            answer = await user.client.post("/api/deposit", json=body, headers=headers)
            locations.append(answer.headers["location"])
            assert (await user.client.get(locations[-1])).json()["status"] == "accepted"
        await quiet.start_workers()
        await finally_of(user, locations[0], "settled")
        refused = await user.client.get(locations[1])
        assert (refused.status_code, refused.json()["code"]) == (422, "key_reused")


async def test_what_is_acknowledged_first_takes_effect_first(user: User) -> None:
    number = await user.account()
    deposit = {"accountNumber": number, "amount": "5"}
    assert (await user.client.post("/api/deposit", json=deposit, headers=ASYNC)).status_code == 202
    answer = await user.client.post("/api/withdraw", json=deposit)
    assert answer.status_code == 200


async def test_the_predecessors_default_is_202(ledger: Ledger) -> None:
    async with running(ledger.settings(answer="accepted")) as api:
        user = await api.user()
        generated = await user.client.get("/api/accountGeneration")
        assert generated.status_code == 200
        number = generated.json()["accountNumber"]
        opened = await user.client.post("/api/accounts", json={})
        assert opened.status_code == 201
        other = opened.json()["accountNumber"]
        body = {"accountNumber": number, "amount": "5"}
        movements = [
            ("/api/deposit", body),
            ("/api/withdraw", body),
            ("/api/withdraw", body),  # will be rejected, which its Location shows
            (
                "/api/transfer",
                {"senderAccountNumber": number, "receiverAccountNumber": other, "amount": "1"},
            ),
        ]
        answers = [await user.client.post(path, json=sent) for path, sent in movements]
        assert [answer.status_code for answer in answers] == [202] * 4
        shown = await finally_of(user, answers[2].headers["location"], "rejected")
        assert shown["reason"] == "insufficient_funds"
        assert "preference-applied" not in answers[0].headers


async def test_without_a_reply_the_outcome_is_looked_up(ledger: Ledger) -> None:
    settings = ledger.settings(redis="redis://127.0.0.1:1", look_up_after=0.05)
    async with running(settings) as api:
        user = await api.user()
        first = await user.account(balance="20")
        for _ in range(6):  # inside one partition and across
            body = {
                "senderAccountNumber": first,
                "receiverAccountNumber": await user.account(),
                "amount": "1",
            }
            assert (await user.client.post("/api/transfer", json=body)).status_code == 200
        assert await user.balance(first) == "14.00"


@pytest.mark.parametrize("redis", ["", "redis://127.0.0.1:1"])
async def test_a_debit_alone_is_not_shown_as_settled(quiet: Ledger, redis: str) -> None:
    others = {"redis": redis} if redis else {}
    settings = quiet.settings(answer_within=1.0, look_up_after=0.05, **others)
    async with running(settings) as api:
        user = await api.user()
        sender, receiver = await user.account(balance="20"), await user.account()
        while partition_of(receiver, PARTITIONS) == partition_of(sender, PARTITIONS):
            receiver = await user.account()
        await quiet.stop_worker(partition_of(receiver, PARTITIONS))
        body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "5"}
        headers = {"Idempotency-Key": "under way"}
        for _ in range(2):  # a repeat too learns of the debit from the worker
            answer = await user.client.post("/api/transfer", json=body, headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (202, "in_transit")
        assert await user.balance(sender) == "15.00"
        await quiet.stop_workers()
        await quiet.start_workers()
        await finally_of(user, answer.headers["location"], "settled")
        assert await user.balance(receiver) == "5.00"


async def test_without_a_lease_nothing_is_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        lease = api.services.leases.of_account(number)

        async def refuse(_: float) -> Lease:
            raise ConnectionRefusedError("planted")

        monkeypatch.setattr(lease, "_renewal", refuse)
        await until_true(lambda: lease.valid() is None)
        body = {"accountNumber": number, "amount": "5"}
        answer = await user.client.post("/api/deposit", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        ready = await user.client.get("/readyz")
        assert ready.status_code == 503
        assert "lease" in ready.json()["missing"][0]


async def test_leases_are_given_back(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        instance = api.services.instance
        assert await leases_of(ledger, instance) == 1
    assert await leases_of(ledger, instance) == 0


async def test_a_renewal_under_way_does_not_bring_a_lease_back(ledger: Ledger) -> None:
    """However far it is when the process stops."""
    for turns in range(8):
        lease = ShardLease("stopping", ledger.settings(), 0)
        await lease.start()
        renewal = asyncio.create_task(lease._renew())
        for _ in range(turns):
            await asyncio.sleep(0)
        await lease.stop()
        renewal.cancel()
        assert await leases_of(ledger, "stopping") == 0


async def leases_of(ledger: Ledger, instance: str) -> int:
    async with running(ledger.settings()) as other:
        pool = other.services.pools[0]
        async with pool.acquire() as connection, connection.transaction():
            count: int = await connection.fetchval(
                "SELECT count(*) FROM leases WHERE instance = $1", instance
            )
        return count


async def test_the_database_gone_is_503(ledger: Ledger) -> None:
    settings = ledger.settings()
    async with running(settings) as api:
        user = await api.user()
    api = Api(ledger.settings(databases="postgresql://microfin_api:x@127.0.0.1:1/nowhere"))
    await api.services.start()
    try:
        async with api.client(Authorization=f"Bearer {user.session_id}") as client:
            body = {"accountNumber": "100000000008", "amount": "5"}
            for answer in (
                await client.post("/api/deposit", json=body),
                await client.post("/api/signin", json={"email": user.email, "password": "x"}),
                await client.get("/api/accounts"),
                await client.get("/api/operations/" + "0" * 32),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
    finally:
        await api.services.stop()


class FaultyProducer:
    """Sends like the real one, and then loses the acknowledgement, or refuses beforehand."""

    def __init__(self, producer: CommandProducer, fault: Exception, *, sends: bool) -> None:
        self._producer = producer
        self._fault = fault
        self._sends = sends

    async def send(self, partition: int, command: Command, headers: Headers = ()) -> Appended:
        if self._sends:
            await self._producer.send(partition, command, headers)
        raise self._fault


def break_producer(api: Api, fault: Exception, *, sends: bool) -> None:
    real = api.services.producer
    api.services.submission._producer = FaultyProducer(real, fault, sends=sends)  # type: ignore[assignment]


async def test_a_refused_command_is_503(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        break_producer(api, ProduceRefused("no connection"), sends=False)
        answer = await user.client.post("/api/deposit", json={"accountNumber": number, "amount": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert await user.balance(number) == "0.00"


async def test_a_lost_acknowledgement_is_answered_by_the_outcome(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        break_producer(api, ProduceUnknown("no ack"), sends=True)
        assert (await user.deposit(number, "5"))["balance"] == "5.00"


async def test_what_nobody_knows_is_503_and_safe_to_repeat(quiet: Ledger) -> None:
    async with running(quiet.settings(answer_within=0.2, unknown_after=0.6)) as api:
        user = await api.user()
        number = await user.account()
        await quiet.stop_workers()
        real = api.services.producer
        break_producer(api, ProduceUnknown("no ack"), sends=True)
        body, headers = {"accountNumber": number, "amount": "5"}, {"Idempotency-Key": "unknown"}
        answer = await user.client.post("/api/deposit", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "unknown")
        problem = answer.json()
        assert problem["operationId"] == operation_id(user.id, "unknown", "deposit", number)
        assert problem["operationStatus"] == "unknown"
        assert problem["idempotencyKey"] == answer.headers["idempotency-key"] == "unknown"
        assert "safe" in problem["detail"]
        api.services.submission._producer = real
        await quiet.start_workers()
        answer = await user.client.post("/api/deposit", json=body, headers=headers)
        while answer.status_code != 200:  # the workers are starting
            assert answer.status_code in (202, 503)
            answer = await user.client.post("/api/deposit", json=body, headers=headers)
        assert await user.balance(number) == "5.00"


async def test_too_many_under_way_are_refused(quiet: Ledger) -> None:
    async with running(quiet.settings(partition_limit=3, answer_within=1.0)) as api:
        user = await api.user()
        number = await user.account()
        await quiet.stop_workers()
        body = {"accountNumber": number, "amount": "1"}
        answers = await asyncio.gather(
            *(user.client.post("/api/deposit", json=body) for _ in range(10))
        )
        statuses = [answer.status_code for answer in answers]
        assert sorted(set(statuses)) == [202, 503]
        assert statuses.count(202) == 3
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.json()["code"] for answer in refused} == {"overloaded"}
        assert all(answer.headers["retry-after"] for answer in refused)
        again = await user.client.post("/api/deposit", json=body)
        assert again.status_code == 202


async def test_what_is_not_acknowledged_stays_under_way(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ledger.settings(partition_limit=1, answer_within=0.05, unknown_after=0.1)
    acknowledging = asyncio.Event()
    async with running(ledger.settings()) as opening, running(settings) as api:
        user = await opening.user()
        number = await user.account()
        sent = api.services.producer.send

        async def send_slowly(partition: int, command: Command, headers: Headers = ()) -> Appended:
            await acknowledging.wait()
            return await sent(partition, command, headers)

        monkeypatch.setattr(api.services.producer, "send", send_slowly)
        body = {"accountNumber": number, "amount": "1"}
        async with api.client(Authorization=f"Bearer {user.session_id}") as client:
            answers = [await client.post("/api/deposit", json=body) for _ in range(2)]
            assert [answer.json()["code"] for answer in answers] == ["unknown", "overloaded"]
            acknowledging.set()
            await api.services.submission.finish(30)
            answer = await client.post("/api/deposit", json=body)
            assert answer.json().get("code") != "overloaded"


@pytest.mark.parametrize(
    ("generation", "intended", "certain"),
    [(1, None, True), (1, 2, True), (1, 4, False), (2, None, False)],
)
async def test_202_waits_for_a_lease_that_shows_the_same_routing(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    intended: int | None,
    certain: bool,
) -> None:
    """A growth under way, as the lease would show it, on an account that it moves."""
    async with running(ledger.settings(answer_within=0.1, unknown_after=0.5)) as api:
        user = await api.user()
        number = await user.account()
        while not Lease(0, Routing(1, 2), 4, 1).moves(number):
            number = await user.account()
        lease = api.services.leases.of_account(number)
        renewal = lease._renewal

        async def growing(sent: float) -> Lease:
            real = await renewal(sent)
            return Lease(real.sent, Routing(generation, 2), intended, 1)

        destination = await api.services.gate.pass_through(number)
        monkeypatch.setattr(lease, "_renewal", growing)
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(
                api.services.gate.until_order_is_certain(number, destination.generation)
            )
            done, _ = await asyncio.wait({waiting}, timeout=1.0)
        assert bool(done) is certain
        waiting.cancel()


async def test_no_202_while_the_order_is_uncertain(
    quiet: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has the command, but a growth may have moved its account meanwhile."""
    async with running(quiet.settings(answer_within=0.1, unknown_after=1.5)) as api:
        user = await api.user()
        number = await user.account()
        await quiet.stop_workers()
        lease = api.services.leases.of_account(number)
        accept = lease._accept

        def grown(renewed: Lease) -> None:
            accept(Lease(renewed.sent, Routing(2, 2), None, 1))

        sent = api.services.producer.send

        async def grow_meanwhile(
            partition: int, command: Command, headers: Headers = ()
        ) -> Appended:
            monkeypatch.setattr(lease, "_accept", grown)
            return await sent(partition, command, headers)

        monkeypatch.setattr(api.services.producer, "send", grow_meanwhile)
        for headers in (ASYNC, {}):
            monkeypatch.setattr(lease, "_accept", accept)
            await lease.sent_after(time.monotonic())
            body = {"accountNumber": number, "amount": "1"}
            answer = await user.client.post("/api/deposit", json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "unknown")
