"""A lease that is late makes commands wait, and only one that is refused makes them be refused."""

import asyncio
import threading
import time

import pytest

from microfin.ledger.lease import IDLE_RENEWAL_SECONDS, RENEWAL_SECONDS
from microfin_api.commands import leases, sending_gate
from microfin_api.commands.leases import Lease, ShardLease
from microfin_api.http.problems import Problem
from support.api_under_test import Api, Ledger, User, running
from support.waiting import until_true


class LateRenewals:
    """Lets a shard's renewals wait until they are let through, or fail."""

    def __init__(self, lease: ShardLease, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lease = lease
        self.passing = threading.Event()
        self.error: Exception | None = None
        self._renewal = lease._renewal
        monkeypatch.setattr(lease, "_renewal", self._renew)

    async def _renew(self, sent: float) -> Lease:
        while not self.passing.is_set():
            if self.error is not None:
                raise self.error
            await asyncio.sleep(0.01)
        return await self._renewal(sent)

    async def expired(self) -> None:
        """Return once the lease has run out."""
        await until_true(lambda: self.lease.valid() is None)


def block(seconds: float) -> None:
    """Keep the event loop from everything else."""
    time.sleep(seconds)  # that it blocks is the point


async def test_a_request_after_the_loop_was_blocked_is_served(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        for _ in range(3):
            block(1.5)
            await api.services.gate.pass_through(number)
            block(1.5)
            await user.deposit(number, "5")


async def test_the_slow_turns_of_a_busy_loop_cost_no_lease(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        number = await (await api.user()).account()
        for _ in range(12):
            block(0.3)
            await asyncio.sleep(0)
            lease = api.services.leases.of_account(number).valid()
            assert lease is not None
        async with asyncio.timeout(30):
            await api.services.gate.until_order_is_certain(number, lease.routing.generation)


async def test_a_request_waits_for_a_late_lease(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        late = LateRenewals(api.services.leases.of_account(number), monkeypatch)
        await late.expired()
        asking = asyncio.create_task(user.deposit(number, "5"))
        await until_true(lambda: api.services.gate._waiting == 1)
        late.passing.set()
        assert (await asking)["balance"] == "5.00"
        assert api.services.gate._waiting == 0


async def refused(api: Api, user: User, number: str) -> None:
    """Check that a deposit is refused, and that nothing was done."""
    answer = await user.client.post("/api/deposit", json={"accountNumber": number, "amount": "5"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert "Nothing was done" in answer.json()["detail"]
    assert api.services.gate._waiting == 0


async def test_a_request_is_refused_when_the_renewal_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        monkeypatch.setattr(sending_gate, "LEASE_WAIT_SECONDS", 300.0)
        late = LateRenewals(api.services.leases.of_account(number), monkeypatch)
        late.error = ConnectionRefusedError("planted")
        await late.expired()
        await refused(api, user, number)
        late.passing.set()
        await until_true(lambda: late.lease.valid() is not None)
        assert await user.balance(number) == "0.00"


async def test_a_request_waits_only_so_long(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        late = LateRenewals(api.services.leases.of_account(number), monkeypatch)
        await late.expired()
        monkeypatch.setattr(sending_gate, "LEASE_WAIT_SECONDS", 0.1)
        await refused(api, user, number)


async def test_only_so_many_wait(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(ledger.settings()) as api:
        number = await (await api.user()).account()
        monkeypatch.setattr(sending_gate, "WAITING_LIMIT", 2)
        monkeypatch.setattr(sending_gate, "LEASE_WAIT_SECONDS", 300.0)
        late = LateRenewals(api.services.leases.of_account(number), monkeypatch)
        await late.expired()
        waiting = [asyncio.create_task(api.services.gate.pass_through(number)) for _ in range(2)]
        await until_true(lambda: api.services.gate._waiting == 2)
        with pytest.raises(Problem, match="unavailable"):
            await api.services.gate.pass_through(number)
        late.passing.set()
        assert len({destination.partition for destination in await asyncio.gather(*waiting)}) == 1


async def test_what_passed_before_a_block_is_not_sent_by_a_lease_that_ran_out(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        late = LateRenewals(api.services.leases.of_account(number), monkeypatch)
        destination = await api.services.gate.pass_through(number)
        assert api.services.gate.still_leads_to(number, destination)
        await late.expired()
        assert not api.services.gate.still_leads_to(number, destination)

        async def pass_by_the_old_lease(_: str) -> sending_gate.Destination:
            return destination

        monkeypatch.setattr(api.services.gate, "pass_through", pass_by_the_old_lease)
        await refused(api, user, number)
        late.passing.set()
        await until_true(lambda: late.lease.valid() is not None)
        assert api.services.gate.still_leads_to(number, destination)
        assert await user.balance(number) == "0.00"


async def test_leases_end_with_their_thread(ledger: Ledger) -> None:
    def renewing() -> set[threading.Thread]:  # other tests' APIs may be running
        return {thread for thread in threading.enumerate() if thread.name == "leases"}

    before = renewing()
    async with running(ledger.settings()):
        assert len(renewing() - before) == 1
    assert not renewing() - before


async def test_a_renewal_wakes_only_loops_on_which_somebody_waits(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger.settings()) as api:
        lease = api.services.leases.of_shard(0)
        woken = 0
        wake = lease._wake

        def count() -> None:
            nonlocal woken
            woken += 1
            wake()

        monkeypatch.setattr(lease, "_wake", count)

        async def renewed() -> None:
            before = lease.latest
            await until_true(lambda: lease.latest is not None and lease.latest is not before)

        for _ in range(3):
            await renewed()
        assert woken == 0
        async with asyncio.timeout(30):
            await lease.attempted()
            await lease.sent_after(time.monotonic())
        assert woken >= 2


async def test_a_renewal_between_look_and_wait_is_not_missed(ledger: Ledger) -> None:
    lease = ShardLease("unheard", ledger.settings(), 0)
    seen = lease.attempts
    await lease.start()
    await lease.stop()
    async with asyncio.timeout(30):
        await lease.attempted(after=seen)


async def test_an_unused_lease_is_renewed_more_rarely_while_the_database_is_quick(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal wakes up this process, PgBouncer and PostgreSQL, and writes to the disk."""
    pauses: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        pauses.append(seconds)
        return timeout(seconds)

    lease = ShardLease("unused", ledger.settings(), 0)
    monkeypatch.setattr(leases.asyncio, "timeout", noted)
    lease._wanted_event.set()
    await lease._until_due(took=0.0)
    await lease._until_due(took=0.3)
    assert not lease.lasts  # who only looks does not use it
    await lease._until_due(took=0.0)
    assert lease.valid() is None  # who sends does
    await lease._until_due(took=0.0)
    seldom, often = IDLE_RENEWAL_SECONDS, RENEWAL_SECONDS
    assert pauses == [seldom, often, seldom, often]
