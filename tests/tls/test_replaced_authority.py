"""The authority of all certificates is replaced while money moves, as Strimzi replaces its own.

First everybody believes the old one and the new one, then all show certificates of the new one,
then nobody believes the old one. After each step all connections end, so that all are made anew.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from integration.certificates import Mounted, TlsBank
from integration.teller import Teller
from microfin_local.wait import accepts_connections
from support.certificates import Authority
from support.waiting import until
from tls.servers import Servers


@pytest.fixture
async def bank(servers: Servers, tmp_path: Path) -> AsyncIterator[TlsBank]:
    before = servers.authority
    bank = TlsBank(servers.platform, tmp_path, partitions=1)
    bank.mounts = [
        Mounted(tmp_path / role, f"microfin-{role}", before) for role in ("worker", "api")
    ]
    for mount in bank.mounts:
        mount.renew()
    try:
        async with bank:
            yield bank
    finally:
        servers.authority, servers.trusted = before, [before]
        await servers.show(servers.right())


async def end_all_connections(servers: Servers) -> None:
    platform = servers.platform
    for node in platform._started_services().redis:
        async with Redis(host="127.0.0.1", port=node.port) as client:
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    for name, port in (("pgbouncer", "pgbouncer"), ("kafka-1", "kafka-1 tls")):
        before = platform.process(name).process_id
        await platform.terminate(name)

        async def is_back(name: str = name, port: str = port, before: int | None = before) -> bool:
            other = platform.process(name).process_id not in (None, before)
            return other and await accepts_connections(platform.port_of(port))

        await until(f"{name} is back", is_back, 60, not_yet=(OSError,))


async def test_an_authority_is_replaced_while_money_moves(
    bank: TlsBank, servers: Servers, record_property: Callable[[str, object], None]
) -> None:
    old, new = servers.authority, Authority("cluster-ca v1")
    processes = [*await bank.workers(), await bank.api()]
    teller = Teller(processes[-1].url)
    number = await teller.open()
    moving = asyncio.create_task(teller.deposit_for_ever(number))
    await teller.progress()

    servers.trusted = [new, old]
    for mount in bank.mounts:
        mount.trust(new, old)
    await servers.show(servers.right())
    await end_all_connections(servers)
    await teller.progress()

    servers.authority = new
    await servers.show(servers.right())
    for mount in bank.mounts:
        mount.renew(authority=new)
    await end_all_connections(servers)
    await teller.progress()

    servers.trusted = [new]
    for mount in bank.mounts:
        mount.trust(new)
    await servers.show(servers.right())
    await end_all_connections(servers)
    await teller.progress()

    moving.cancel()
    await asyncio.wait({moving})
    await asyncio.sleep(1)
    record_property("longest_seconds_to_settle", round(teller.longest, 2))
    assert float(await teller.balance(number)) in (teller.settled, teller.settled + 1)
    for process in processes:
        answer = await (await process.ready()).get("/readyz")
        assert answer is not None
        assert "slower" not in answer.text, "Redis is used again, too"
        assert "TLS is refused" not in process.log.read_text()
    await bank.check()
