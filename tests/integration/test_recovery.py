"""A shard restored from an older backup, and the log replayed over it.

The commands are those of the runbook, docs/runbooks/restored-shard.md, run by a shell.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from integration.bank import ANNA, Bank, MakeBank, Process
from integration.growing_clients import GrowingClients
from integration.growth import grown, widen
from integration.raw_log import admin
from integration.restored_shard import back_up, lose_and_restore, unlock
from microfin_local.configuration import DATA_COMPONENTS, Configuration
from microfin_local.platform import Platform

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "restored-shard.md"
DECIDED = """
SELECT o.operation_id, o.leg, o.kind, o.status, o.account, o.amount, o.seq, o.balance, o.reason,
    o.partition, o.log_offset, o.at, e.balance_after, e.at AS entry_time
FROM outcomes o LEFT JOIN entries e USING (operation_id, leg, account)
ORDER BY partition, log_offset
"""

SIGN_UP = "INSERT INTO users (id, email, name, password_hash) VALUES ($1, 'a@b.example', 'A', '')"


@pytest.fixture(scope="module")
async def own_components(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    """Our own data components: a restored shard sets every database on it back in time."""
    configuration = Configuration(
        state=tmp_path_factory.mktemp("recovery"),
        workers=4,
        shards=2,
        components=DATA_COMPONENTS,
        random_ports=True,
    )
    async with Platform(configuration) as platform:
        yield platform


@pytest.fixture
async def make_own_bank(own_components: Platform, tmp_path: Path) -> AsyncIterator[MakeBank]:
    async with AsyncExitStack() as stack:

        async def make(partitions: int = 4, shards: int = 2) -> Bank:
            bank = await stack.enter_async_context(
                Bank(own_components, tmp_path, partitions, shards)
            )
            await bank.pools[0].execute(SIGN_UP, ANNA)
            return bank

        yield make


class Ran:
    """What a command of the runbook printed, and its exit code."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors

    def json(self) -> Any:
        return json.loads(self.output)


async def follow_runbook(bank: Bank, command: str, **more: str) -> Ran:
    """Run the line of the runbook that begins with `command`, for shard 0."""
    line = re.search(rf"^ *({re.escape(command)}\b.*)$", RUNBOOK.read_text(), re.MULTILINE)
    assert line is not None, f"the runbook has no command {command}"
    return await run(bank, line[1], **more)


async def run(bank: Bank, line: str, **more: str) -> Ran:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        env={**os.environ, **bank.environment("operator"), "PATH": path, "SHARD": "0", **more},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    ran = Ran(process.returncode or 0, output.decode(), errors.decode())
    assert "Traceback" not in ran.errors, ran.errors
    return ran


async def stop_all(bank: Bank) -> None:
    running = [process for process in bank.processes if not process.ended]
    await asyncio.gather(*(process.end(signal.SIGKILL) for process in running))


async def decided(bank: Bank, shard: int) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await bank.pools[shard].fetch(DECIDED)]


async def sign_up(api: Process) -> tuple[httpx.AsyncClient, str]:
    session = httpx.AsyncClient(base_url=api.url, timeout=30)
    person = {"name": "R", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
    answer = (await session.post("/api/signup", json=person)).raise_for_status()
    return session, answer.json()["userId"]


async def test_nothing_is_lost_that_the_log_still_holds(make_own_bank: MakeBank) -> None:
    bank = await make_own_bank()
    workers = await bank.workers()
    api = await bank.api()
    async with GrowingClients([api.url], patient=True) as clients:
        await clients.progress()
        backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
        await clients.progress()
        accounts = await bank.traffic("after the backup")
        await bank.set_state(accounts[0], "frozen", "after the backup")
        await bank.transfer(accounts[1], accounts[0], "1", "to a frozen account")
        await clients.progress()
    await bank.check()
    before = [await decided(bank, shard) for shard in range(2)]
    await stop_all(bank)

    await lose_and_restore(bank.platform, 0, backup)
    assert len(await decided(bank, 0)) < len(before[0])
    checked = await follow_runbook(bank, "microfin recover check")
    assert checked.code == 0, checked.output + checked.errors
    prepared = await follow_runbook(bank, "microfin recover prepare")
    assert prepared.code == 0, prepared.output + prepared.errors
    await bank.workers()
    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 0, verified.output + verified.errors
    await bank.api()

    assert [await decided(bank, shard) for shard in range(2)] == before
    await clients.check(bank)
    await bank.traffic("after the recovery")
    await bank.check()
    del workers


async def test_the_other_shards_serve_meanwhile(make_own_bank: MakeBank) -> None:
    """No process is stopped; the restored shard's door is locked until it is prepared."""
    bank = await make_own_bank()
    await bank.workers()
    api = await bank.api()
    async with GrowingClients([api.url], users=8, patient=True) as clients:
        await clients.progress()
        backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
        await clients.progress()
        await lose_and_restore(bank.platform, 0, backup, locked=True)
        await clients.is_refused()
        await clients.progress(more=10)
        prepared = await follow_runbook(bank, "microfin recover prepare")
        assert prepared.code == 0, prepared.output + prepared.errors
        unlock(bank.platform, 0, backup)
        verified = await follow_runbook(bank, "microfin recover verify")
        assert verified.code == 0, verified.output + verified.errors
        await clients.progress()
    await clients.check(bank)
    await bank.check()


async def test_a_worker_from_before_the_restore_cannot_commit(make_own_bank: MakeBank) -> None:
    """Its epoch is the one that the first claim after the restore would have used again."""
    bank = await make_own_bank()
    workers = await bank.workers()
    accounts = await bank.traffic("before")
    await bank.check()
    backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
    await workers[0].end()
    zombie = await (await bank.worker(0)).ready()
    await bank.traffic("after")
    await bank.check()
    zombie.send_signal(signal.SIGSTOP)
    await asyncio.gather(*(worker.end() for worker in workers[1:]))

    await lose_and_restore(bank.platform, 0, backup)
    prepared = await follow_runbook(bank, "microfin recover prepare")
    assert prepared.code == 0, prepared.output + prepared.errors
    heirs = await bank.workers()
    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 0, verified.output + verified.errors
    epoch = (await heirs[0].status())["epoch"]
    zombie.send_signal(signal.SIGCONT)
    await zombie.reaches("fenced")
    await bank.deposit(accounts[0], "1", "the heir goes on")
    await bank.check()
    assert (await heirs[0].status())["epoch"] == epoch


async def test_a_backup_from_before_the_last_growth_is_refused(make_own_bank: MakeBank) -> None:
    """And one from after it is taken."""
    bank = await make_own_bank(partitions=2)
    await bank.workers()
    api = await bank.api()
    async with GrowingClients([api.url], patient=True) as clients:
        await clients.progress()
        too_old = await back_up(bank.platform, 0, f"too-old-{bank.name}")
        await widen(bank, 4)
        await grown(bank, 4)
        await clients.progress()
        young_enough = await back_up(bank.platform, 0, f"young-enough-{bank.name}")
        await clients.progress()
    before = await decided(bank, 0)
    await stop_all(bank)

    await lose_and_restore(bank.platform, 0, too_old)
    rows = await bank.pools[0].fetch("SELECT * FROM partitions")
    for command in ("microfin recover check", "microfin recover prepare"):
        refused = await follow_runbook(bank, command)
        assert refused.code == 1
        assert "from before the last growth" in refused.output + refused.errors
        assert "generation 2" in refused.output + refused.errors
    assert await bank.pools[0].fetch("SELECT * FROM partitions") == rows

    await lose_and_restore(bank.platform, 0, young_enough)
    prepared = await follow_runbook(bank, "microfin recover prepare")
    assert prepared.code == 0, prepared.output + prepared.errors
    await bank.workers()
    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 0, verified.output + verified.errors
    assert await decided(bank, 0) == before
    await clients.check(bank)
    await bank.check()


async def test_a_shard_from_before_two_growths_catches_up(make_own_bank: MakeBank) -> None:
    """Nothing was sent to it meanwhile, so its backup is used, and the growth covers both."""
    bank = await make_own_bank(partitions=2)
    await bank.workers()
    await bank.traffic("before")
    await bank.check()
    backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
    for partitions in (4, 6):
        await widen(bank, partitions)
        await grown(bank, partitions)
    await stop_all(bank)

    await lose_and_restore(bank.platform, 0, backup)
    prepared = await follow_runbook(bank, "microfin recover prepare")
    assert prepared.code == 0, prepared.output + prepared.errors
    assert "microfin routing grow --partitions 6" in prepared.output
    await bank.workers()
    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 0, verified.output + verified.errors
    routings = "SELECT generation, partition_count, intent_token FROM routing"
    assert [tuple(row) for row in await bank.fetch(routings)] == [(1, 2, None), (3, 6, None)]

    await grown(bank, 6)
    assert [tuple(row) for row in await bank.fetch(routings)] == [(3, 6, None), (3, 6, None)]
    await bank.traffic("afterwards")
    await bank.check()


async def test_it_refuses_while_somebody_works_on_the_shard(make_own_bank: MakeBank) -> None:
    bank = await make_own_bank()
    workers = await bank.workers()
    api = await bank.api()
    await bank.traffic("some")
    await bank.check()
    for what, stop in (("workers", workers), ("API", [api])):
        refused = await follow_runbook(bank, "microfin recover prepare")
        assert refused.code == 1
        assert what in refused.output + refused.errors
        await asyncio.gather(*(process.end() for process in stop))
    prepared = await follow_runbook(bank, "microfin recover prepare")
    assert prepared.code == 0, prepared.output + prepared.errors


async def test_all_of_it_may_be_run_twice(make_own_bank: MakeBank) -> None:
    bank = await make_own_bank()
    await bank.workers()
    await bank.traffic("before")
    backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
    await bank.traffic("after")
    await bank.check()
    before = await decided(bank, 0)
    await stop_all(bank)
    await lose_and_restore(bank.platform, 0, backup)
    for times in (2, 1):
        for _ in range(times):
            ran = await follow_runbook(bank, "microfin recover prepare")
            assert ran.code == 0, ran.output + ran.errors
        await bank.workers()
        for _ in range(2):
            ran = await follow_runbook(bank, "microfin recover verify")
            assert ran.code == 0, ran.output + ran.errors
        await stop_all(bank)
    assert await decided(bank, 0) == before


async def test_people_who_signed_up_after_the_backup_are_listed(make_own_bank: MakeBank) -> None:
    bank = await make_own_bank()
    await bank.workers()
    api = await bank.api()
    early, _ = await sign_up(api)
    backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
    late, user = await sign_up(api)
    opened = await late.post("/api/accounts", json={})
    number = opened.raise_for_status().json()["accountNumber"]
    (await late.post("/api/deposit", json={"accountNumber": number, "amount": "7"}))
    await early.post("/api/signout", json={})
    await stop_all(bank)

    await lose_and_restore(bank.platform, 0, backup)
    assert (await follow_runbook(bank, "microfin recover prepare")).code == 0
    await bank.workers()
    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 1
    assert user in verified.output
    assert number in verified.output
    api = await bank.api()
    early.base_url = late.base_url = api.url
    # A session that was ended after the backup must not come back with it.
    assert (await early.get("/api/me")).status_code == 401

    email, password = f"{uuid4().hex}@example.com", uuid4().hex
    ran = await follow_runbook(
        bank,
        'echo "$PASSWORD" | microfin user create',
        PASSWORD=password,
        USER_ID=user,
        EMAIL=email,
        NAME="R",
    )
    assert ran.code == 0, ran.errors
    answer = await late.post("/api/signin", json={"email": email, "password": password})
    answer.raise_for_status()
    shown = await late.get(f"/api/accounts/{number}")
    assert shown.json()["balance"] == "7.00"
    assert (await follow_runbook(bank, "microfin recover verify")).code == 0
    for session in (early, late):
        await session.aclose()


async def trim(bank: Bank, partition: int) -> None:
    """Delete all that is in a partition, as if the window for recovery had been too short."""
    client = await admin(bank)
    place = TopicPartition(bank.topic, partition)
    await client.delete_records({place: RecordsToDelete(-1)})
    await client.close()


async def test_what_the_log_has_lost_is_listed_and_what_is_owed_is_sent(
    make_own_bank: MakeBank,
) -> None:
    bank = await make_own_bank()
    await bank.workers()
    here = [await bank.open_on(partition, "100", "here") for partition in (0, 2)]
    there = await bank.open_on(1, "100", "there")
    await bank.check()
    backup = await back_up(bank.platform, 0, f"backup-{bank.name}")
    credit = await bank.transfer(there, here[0], "10", "a credit for the lost shard")
    debit = await bank.transfer(here[0], there, "20", "a debit of the lost shard")
    await bank.final(credit)
    await bank.final(debit)
    funds = await bank.deposit(here[1], "500", "that nobody else knows of")
    spent = await bank.transfer(here[1], there, "550", "with money that is lost")
    await bank.final(spent)
    await bank.check()
    await stop_all(bank)
    for partition in (0, 2):
        await trim(bank, partition)

    await lose_and_restore(bank.platform, 0, backup)
    checked = await follow_runbook(bank, "microfin recover check")
    assert checked.code == 1
    for operation in (credit, debit, spent):
        assert operation in checked.output
    refused = await follow_runbook(bank, "microfin recover prepare")
    assert refused.code == 1
    assert "--accept-loss" in refused.output + refused.errors
    accepted = await follow_runbook(bank, "microfin recover prepare --shard $SHARD --accept-loss")
    assert accepted.code == 0, accepted.output + accepted.errors
    await bank.workers()

    verified = await follow_runbook(bank, "microfin recover verify")
    assert verified.code == 1
    for operation in (credit, debit, spent):
        assert operation in verified.output
    sent = await run(bank, "microfin recover verify --shard $SHARD --send --json")
    assert sent.code == 1, "the money of one transfer is gone"
    report = sent.json()
    assert {it["operation"] for it in report["sent"]} == {credit, debit, spent}
    assert [it["operation"] for it in report["contradictory"]] == [spent]
    assert not report["audit"]["ok"]
    assert (await bank.final(credit)).status == "settled"
    assert (await bank.final(debit)).status == "settled"
    assert await bank.balance(here[0]) == 9_000
    assert await bank.operation(funds) is None
