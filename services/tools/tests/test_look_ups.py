"""Look-ups over many volumes: they find everything, and ask only the volumes that may have it."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from microfin.postgres import queries, statements
from microfin.postgres.archive_reading import Archive
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.audit import audit
from microfin_worker.volumes import OutcomeCount, VolumeKeeper
from support.postgres_ledger import PostgresLedger, make_ledger_databases

ALICE = uuid4().hex
NO_ARCHIVE = Archive(0, 1, "", CommonSettings())
VOLUMES = 12
LOCKED = """
SELECT count(DISTINCT nspname) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pid = pg_backend_pid() AND nspname LIKE 'volume%'
"""
EVERYTHING = """
SELECT seq, balance_after, operation_id, kind, (extract(epoch FROM at) * 1000)::bigint AS time
FROM entries WHERE account = $1 ORDER BY seq DESC
"""


@pytest_asyncio.fixture
async def ledger(platform: Platform) -> AsyncIterator[PostgresLedger]:
    databases = await make_ledger_databases(platform, f"look_ups_{uuid4().hex[:10]}", 1, 2)
    urls = [platform.postgres_direct(0, database=database) for database in databases]
    async with PostgresLedger(urls, 2) as ledger:
        yield ledger


async def turn(ledger: PostgresLedger) -> None:
    """Let the newest volume be full at once, and turn to the next."""
    async with ledger.pools[0].acquire() as connection:
        await connection.execute("UPDATE routing SET outcomes_per_volume = 1")
        assert await connection.fetchval("SELECT turn_volume()") is not None
        await connection.execute("UPDATE routing SET outcomes_per_volume = 4000000")


async def sum_up(ledger: PostgresLedger) -> None:
    await VolumeKeeper(ledger.pools[0], OutcomeCount(), pause=0).keep()


async def money_in_some_volumes(ledger: PostgresLedger, chance: random.Random) -> list[str]:
    """Open accounts, and move their money in some of the volumes; others have none of theirs."""
    accounts = [ledger.open(ALICE, "EUR", partition % 2) for partition in range(4)]
    await ledger.drain()
    for _ in range(VOLUMES - 1):
        for account in chance.sample(accounts, k=2):
            for _ in range(chance.randint(1, 5)):
                kind = chance.choice(("deposit", "withdraw", "transfer"))
                to = chance.choice([it for it in accounts if it != account])
                ledger.request(
                    kind,
                    account,
                    user=ALICE,
                    amount=str(chance.randint(1, 9)),
                    **({"to": to} if kind == "transfer" else {}),
                )
                await ledger.drain()
        await turn(ledger)
    return accounts


async def plain(ledger: PostgresLedger, account: str) -> list[asyncpg.Record]:
    """Return all entries of an account, without any look-up of volumes."""
    rows: list[asyncpg.Record] = await ledger.pools[0].fetch(EVERYTHING, account)
    return rows


@pytest.mark.parametrize("summed_up", [0, 5, VOLUMES])
@pytest.mark.parametrize("seed", range(2))
async def test_statements_balances_and_operations_are_those_of_all_volumes(
    ledger: PostgresLedger, seed: int, summed_up: int
) -> None:
    chance = random.Random(seed)
    accounts = await money_in_some_volumes(ledger, chance)
    pool = ledger.pools[0]
    if summed_up:
        await sum_up(ledger)
        # A keeper that is stopped leaves a volume with a part of its summaries.
        await pool.execute(
            "UPDATE volumes SET summed_accounts = 400, summed_chunks = 512 WHERE volume >= $1"
            " AND summed_chunks > 0",
            summed_up,
        )
    for account in accounts:
        rows = await plain(ledger, account)
        expected = [row["seq"] for row in rows]
        for limit in (1, 3, 100):
            assert await walked(pool, account, limit) == expected
        for kind in ("deposit", "withdraw", "transfer"):
            of_kind = [row["seq"] for row in rows if row["kind"] == kind]
            assert await walked(pool, account, 2, kind=kind) == of_kind
        times = sorted({row["time"] + change for row in rows for change in (-1, 0, 1)})
        for time in chance.sample(times, k=min(20, len(times))):
            at = await statements.balance_at(pool, account, time, NO_ARCHIVE)
            before = [(row["balance_after"], row["seq"]) for row in rows if row["time"] <= time]
            assert (at.balance, at.seq) == (before[0] if before else (0, 0))
        asked = [row["operation_id"].hex for row in rows]
        found = await queries.operations([pool], [*asked, uuid4().hex])
        assert set(found) == set(asked)
    nobody, everything = "000000000000", statements.StatementFilter()
    unknown = await statements.entries(pool, nobody, everything, 10, NO_ARCHIVE)
    assert unknown.lines == []
    assert (await audit(ledger.urls, at_rest=True)).violations == []


def now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


async def walked(pool: Any, account: str, limit: int, **filters: Any) -> list[int]:
    """Return the numbers of an account's entries, page by page."""
    seqs: list[int] = []
    below: int | None = None
    while True:
        wanted = statements.StatementFilter(before_seq=below, **filters)
        page = await statements.entries(pool, account, wanted, limit, NO_ARCHIVE)
        seqs += [line.seq for line in page.lines]
        if page.next_seq is None:
            return seqs
        below = page.next_seq


async def locked_by(ledger: PostgresLedger, question: str, *arguments: Any) -> int:
    """Return how many volumes a question locks."""
    async with ledger.pools[0].acquire() as connection, connection.transaction():
        await connection.fetch(question, *arguments)
        volumes: int = await connection.fetchval(LOCKED)
    return volumes


async def test_a_question_asks_only_the_volumes_that_may_answer_it(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    asked = ledger.request("deposit", account, user=ALICE, amount="5")
    await ledger.drain()
    quiet = ledger.open(ALICE, "EUR", 1)
    for _ in range(VOLUMES - 1):
        ledger.request("deposit", quiet, user=ALICE, amount="5")
        await ledger.drain()
        await turn(ledger)
    await sum_up(ledger)
    newest_and_its_own = 2
    stranger = uuid4().hex
    assert await locked_by(ledger, queries._LEGS, [asked]) == newest_and_its_own
    assert await locked_by(ledger, queries._LEGS, [stranger]) == 1
    page = (account, 0, 2**62, None, 10)
    assert await locked_by(ledger, statements._ENTRIES, *page) == newest_and_its_own
    border = statements._ENTRIES_AND_BORDER
    assert await locked_by(ledger, border, *page) == newest_and_its_own
    assert await locked_by(ledger, statements._NEWEST_AND_BORDER, account) == 0
    assert (
        await locked_by(ledger, statements._LAST_SEQ_BEFORE, account, now()) == newest_and_its_own
    )
    decided = "SELECT decided_before($1::uuid[], ARRAY['request'], $2)"
    assert await locked_by(ledger, decided, [stranger], VOLUMES - 1) == 0
    assert await locked_by(ledger, decided, [asked], VOLUMES - 1) == 1


async def test_a_batch_locks_the_newest_volume_alone(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    await ledger.drain()
    for _ in range(VOLUMES - 1):
        ledger.request("deposit", account, user=ALICE, amount="5")
        await ledger.drain()
        await turn(ledger)
    await sum_up(ledger)
    ledger.request("deposit", account, user=ALICE, amount="5")
    async with ledger.pools[0].acquire() as connection:
        await connection.execute(COUNT_LOCKS)
    await ledger.drain()
    assert await ledger.pools[0].fetchval("SELECT volumes FROM locked_at_commit") == 1


# What the batch's transaction holds when it commits.
COUNT_LOCKS = f"""
CREATE TABLE locked_at_commit (volumes integer);
CREATE FUNCTION count_locks() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO locked_at_commit {LOCKED};
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER count_locks AFTER UPDATE ON partitions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_locks();
"""
