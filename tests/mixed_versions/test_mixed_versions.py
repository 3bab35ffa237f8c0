"""The last release and this checkout side by side (docs/reference/compatibility.md)."""

import asyncio
import contextlib
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from integration.bank import Bank, Process
from integration.growing_clients import GrowingClients
from integration.raw_log import append_raw
from microfin.ledger import wire
from mixed_versions.two_releases import PRESENT, Release
from support.waiting import until


async def worker(bank: Bank, release: Release, partition: int) -> Process:
    # As docs/guide/upgrading.md says: the API processes of the release before read this.
    settings = {"MICROFIN_CACHE_ACCOUNTS": "always", **release.environment}
    started = await bank.worker(partition, python=release.python, **settings)
    return await started.ready()


async def exchange(bank: Bank, release: Release, workers: list[Process]) -> list[Process]:
    """Replace the workers by those of `release`, one by one."""
    exchanged = []
    for partition, old in enumerate(workers):
        assert await old.end() == 0
        exchanged.append(await worker(bank, release, partition))
    return exchanged


async def test_each_release_runs_its_own_sources(before: Release) -> None:
    """Otherwise all that follows would be this checkout against itself, unnoticed."""
    for release in (before, PRESENT):
        for package in ("microfin", "microfin_api", "microfin_worker"):
            found = await release.run("-c", f"import {package}; print({package}.__file__)")
            assert Path(found).is_relative_to(release.folder), f"{release.name}: {found}"


async def test_the_last_releases_workers_get_only_what_they_read(
    bank: Bank, before: Release
) -> None:
    """A record of a newer version would stop their partitions."""
    read = await before.run("-c", "from microfin.ledger import wire; print(wire.VERSION)")
    await bank.migrate()
    workers = [await worker(bank, before, it) for it in range(bank.partitions)]
    api = await bank.api(python=PRESENT.python, **PRESENT.environment)
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        person = {"name": "A", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
        session = (await client.post("/api/signup", json=person)).json()["sessionId"]
        client.headers["Authorization"] = f"Bearer {session}"
        number = (await client.post("/api/accounts", json={})).json()["accountNumber"]
        plain = {"accountNumber": number, "amount": "1"}
        noted = {**plain, "reference": "Invoice 117"}
        expected = 200 if int(read) >= 2 else 503
        assert (await client.post("/api/deposit", json=noted)).status_code == expected
        assert (await client.post("/api/deposit", json=plain)).status_code == 200
        held = 201 if int(read) >= 3 else 503
        assert (await client.post("/api/holds", json=plain)).status_code == held
        *others, last = range(bank.partitions)
        for partition in others:
            assert await workers[partition].end() == 0
            await worker(bank, PRESENT, partition)
        assert (await client.post("/api/deposit", json=noted)).status_code == expected
        assert (await client.post("/api/holds", json=plain)).status_code == held
        assert await workers[last].end() == 0
        await worker(bank, PRESENT, last)

        async def is_taken() -> bool:
            return (await client.post("/api/deposit", json=noted)).status_code == 200

        await until("the reference is taken", is_taken)
        made = await client.post("/api/holds", json=plain)
        assert made.status_code == 201, made.text
        captured = await client.post(f"/api/holds/{made.json()['holdId']}/capture")
        assert captured.status_code == 200, captured.text
    await bank.check()


async def test_an_upgrade_and_the_way_back_under_traffic(bank: Bank, before: Release) -> None:
    workers = list(
        await asyncio.gather(*(worker(bank, before, it) for it in range(bank.partitions)))
    )
    old_api = await bank.api(python=before.python, **before.environment)
    async with GrowingClients([old_api.url], users=2, patient=True) as clients:
        await clients.progress(more=30)
        await bank.migrate()
        await clients.progress(more=30)
        new_api = await bank.api(python=PRESENT.python, **PRESENT.environment)
        async with GrowingClients([new_api.url], users=2, patient=True) as new_clients:
            await new_clients.progress(more=30)
            workers = await exchange(bank, PRESENT, workers)
            await clients.progress(more=30)
            await new_clients.progress(more=30)
            workers = await exchange(bank, before, workers[:2]) + workers[2:]
            await clients.progress(more=30)
            await new_clients.progress(more=30)
    await bank.traffic("between both releases' workers")
    await bank.check()
    for both in (clients, new_clients):
        await both.check(bank)
    for release in (before, PRESENT):
        await release.run(
            *release.command_line, "audit", "--at-rest", **bank.environment("operator")
        )


@pytest.mark.parametrize("workers_first", [True, False])
async def test_balances_are_never_older_than_answers(
    bank: Bank, before: Release, workers_first: bool
) -> None:
    """By API processes of both releases, with workers of either."""
    await bank.migrate()
    release = PRESENT if workers_first else before
    await asyncio.gather(*(worker(bank, release, it) for it in range(bank.partitions)))
    apis = [await bank.api(python=it.python, **it.environment) for it in (before, PRESENT)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=api.url, timeout=30))
            for api in apis
        ]
        person = {"name": "A", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
        session = (await clients[0].post("/api/signup", json=person)).json()["sessionId"]
        for client in clients:
            client.headers["Authorization"] = f"Bearer {session}"
        number = (await clients[0].post("/api/accounts", json={})).json()["accountNumber"]
        body = {"accountNumber": number, "amount": "1"}
        for turn in range(1, 21):
            settled = await clients[turn % 2].post("/api/deposit", json=body)
            assert settled.json()["balance"] == f"{turn}.00", settled.text
            for client in clients * 2:
                shown = (await client.get(f"/api/accounts/{number}")).json()
                assert (shown["balance"], shown["seq"]) == (f"{turn}.00", turn)


async def test_a_partition_waits_for_a_worker_that_reads_its_records(bank: Bank) -> None:
    """A record of a newer wire version, and what was sent after it."""
    await bank.migrate()
    first = await worker(bank, PRESENT, 0)
    account = await bank.open_on(0, balance="1")
    await bank.check()
    ahead = bank.request("deposit", account, "of the next release", amount="20")
    value = wire.encode(ahead).replace(b'{"v":1', b'{"v":4')
    offset = await append_raw(bank, 0, account.encode(), value)
    behind = await bank.withdraw(account, "21", "only after the deposit")
    for stopping in (first, await bank.worker(0)):
        status = await stopping.reaches("stopped")
        assert "version 4" in status["reason"]
        assert status["next_offset"] == offset
        assert (await stopping.get("/readyz")).status_code == 503
        assert (await stopping.get("/healthz")).status_code == 200
        await stopping.end()
    assert await bank.operation(behind) is None

    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "mixed_versions.newer_worker"]
    await (await bank.worker(0, command=command, **environment)).ready()
    assert (await bank.final(ahead.operation)).status == "settled"
    assert (await bank.final(behind)).status == "settled"
    await bank.check()
    assert not await bank.fetch("SELECT 1 FROM quarantine")
