"""A made-up past: as planned, explained, and out of the way of what comes after it."""

from random import Random
from uuid import uuid4

import pytest

from microfin.ledger.routing import Routing
from microfin_loadtest.history.decided import Past
from microfin_loadtest.history.make import HistoryRequest, make_history
from microfin_loadtest.history.traffic import Plan, requests
from microfin_loadtest.ledger import audit_at_rest
from microfin_local.platform import Platform
from support import ledger_history
from support.postgres_ledger import PostgresLedger, make_ledger_databases

PARTITIONS = ledger_history.PARTITIONS


def plan(operations: int, accounts: int) -> Plan:
    return Plan(
        operations=operations,
        accounts=accounts,
        owners=[uuid4().hex, uuid4().hex],
        begins=1_700_000_000_000,
        ends=1_700_000_100_000,
        mark="m",
    )


@pytest.mark.parametrize(("operations", "accounts"), [(10, 2), (11, 5), (500, 20), (500, 499)])
def test_it_has_the_operations_that_were_planned(operations: int, accounts: int) -> None:
    wanted = plan(operations, accounts)
    made = list(requests(wanted))
    assert len({it.operation for it in made}) == len(made) == operations
    opened = [it for it in made if it.kind == "open"]
    assert len(opened) == min(accounts, operations // 2)
    assert made == list(requests(wanted)), "the same plan gives the same requests"


def test_its_offsets_are_before_the_log() -> None:
    wanted = plan(100, 4)
    past = Past(Routing(1, 1), {0: -50})
    with pytest.raises(ValueError, match="reaches the log"):
        past.decide((it, wanted.begins) for it in requests(wanted))


@pytest.mark.parametrize("shards", [1, 2])
async def test_it_is_explained_and_work_goes_on(platform: Platform, shards: int) -> None:
    """Twice, into a ledger that has a history already and gets more of it."""
    databases = await make_ledger_databases(platform, f"past_{shards}", shards, PARTITIONS)
    urls = [platform.postgres_direct(0, database=it) for it in databases]
    workers = [platform.postgres_direct(0, "microfin_worker", it) for it in databases]
    said: list[str] = []
    async with PostgresLedger(workers, PARTITIONS) as ledger:
        history = await ledger_history.begin(ledger, Random(3))
        for _ in range(2):
            wanted = HistoryRequest(operations=3_000, accounts=100, owners=5, days=30)
            made = await make_history(urls, wanted, said.append)
            assert (made["operations"], made["accounts"]) == (3_000, 100)
            audited = await audit_at_rest(urls)
            assert audited["ok"], audited
        assert audited["operations"] >= 6_000
        await ledger_history.move_money(ledger, history, Random(4), 100)
        await ledger.drain()
    audited = await audit_at_rest(urls)
    assert audited["ok"], audited
    assert any("3,000 of 3,000 operations" in it for it in said)
