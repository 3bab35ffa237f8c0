"""The auditor against valid histories, planted corruptions, and a ledger that is being used."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from microfin_local.platform import Platform
from microfin_tools.archive import archive
from microfin_tools.audit import AuditImpossible, AuditReport, log_places, whole
from microfin_tools.audit import audit as audit_shards
from support import ledger_history
from support.ledger_history import History
from support.planted_corruptions import (
    ADD_PRIMARY_KEYS,
    CORRUPT,
    CORRUPTIONS,
    DECIDED_TWICE,
    DROP_PRIMARY_KEYS,
    KEEP,
    LAST,
    RESTORE,
    UNDO_CREDIT,
)
from support.postgres_ledger import (
    PostgresLedger,
    archives_of,
    make_archives,
    make_ledger_databases,
)

PARTITIONS = ledger_history.PARTITIONS


COLUMNS = """
SELECT table_name AS table, column_name AS column, data_type AS type
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = ANY($1) AND data_type = ANY($2)
    AND column_name <> 'volume'
ORDER BY table_name, ordinal_position
"""

SEQUENTIAL_SCANS = """
SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables
WHERE relname IN ('outcomes', 'entries', 'accounts') AND schemaname <> 'kept'
"""
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

TURN = """
UPDATE routing SET outcomes_per_volume = 1;
SELECT turn_volume();
UPDATE routing SET outcomes_per_volume = 4000000;
"""

NEWEST_VOLUME = """
ALTER TABLE outcomes ALTER volume SET DEFAULT 1;
ALTER TABLE entries ALTER volume SET DEFAULT 1;
"""

CHANGED = {
    "accounts": "number = '{anna}'",
    "outcomes": "operation_id = '{crossed}' AND leg = 'request'",
    "entries": "operation_id = '{crossed}' AND leg = 'request'",
    "contra_balances": "partition = 0 AND contra = 'cash' AND currency = 'EUR'",
}
"""One row of each table."""

OTHER_VALUES = {
    "bigint": "coalesce(COLUMN, 0) + 1",
    "integer": "COLUMN + 2",
    "numeric": "COLUMN + 1",
    "uuid": "gen_random_uuid()",
    "bytea": "COLUMN || COLUMN",
    "timestamp with time zone": "COLUMN + interval '1 ms'",
    # Some value of the column in another row keeps more of the table's rules than one of ours.
    "text": "CASE COLUMN WHEN 'in_transit' THEN 'cash' WHEN 'cash' THEN 'in_transit'"
    " WHEN 'open' THEN 'closed' WHEN 'EUR' THEN 'USD' WHEN 'transfer' THEN 'deposit'"
    " WHEN 'request' THEN 'refund' WHEN 'debited' THEN 'settled' WHEN '{bert}' THEN '{carl}'"
    " WHEN '{anna}' THEN '{emil}' ELSE coalesce(COLUMN, '') || E'\\x01' END",
    "jsonb": "coalesce(COLUMN, '{{}}') || '{{\"added\": \"\"}}'",
}


async def audit(urls: Sequence[str], **options: Any) -> AuditReport:
    """Audit shards and, where old volumes are there, their archives."""
    return await audit_shards(urls, archives=archives_of(urls), **options)


class Ledger:
    """Databases with a history, and a copy of their rows for tests that spoil them."""

    def __init__(self, platform: Platform, databases: list[str]) -> None:
        self.platform = platform
        self.databases = databases
        self.history = History({})

    def urls(self, role: str = "microfin_auditor") -> list[str]:
        return [self.platform.postgres_direct(0, role, database) for database in self.databases]

    async def copy_rows(self) -> None:
        for shard in range(len(self.databases)):
            await self.execute(shard, KEEP)

    async def restore(self) -> None:
        for shard in range(len(self.databases)):
            await self.execute(shard, RESTORE)

    async def corrupt(self, place: str, statements: str) -> None:
        names = {field: getattr(self.history, field) for field in self.history.__struct_fields__}
        shard = 0 if place == "source" else 1 % len(self.databases)
        await self.execute(shard, CORRUPT + statements.replace("LAST", LAST).format(**names))

    async def places(self) -> dict[int, int]:
        """Return the next offset of each partition."""
        found: dict[int, int] = {}
        for url in self.urls():
            connection = await asyncpg.connect(url, ssl=False)
            found |= dict(await connection.fetch("SELECT partition, next_offset FROM partitions"))
            await connection.close()
        return found

    async def sequential_scans(self) -> list[int]:
        """Return, by shard, how often a table that grows was read from end to end.

        A server process adds what it did when it ends.
        """
        scans = []
        for url in self.urls():
            connection = await asyncpg.connect(url, ssl=False)
            while await connection.fetchval(BUSY):  # noqa: ASYNC110 - nothing says when
                await asyncio.sleep(0.01)
            scans.append(await connection.fetchval(SEQUENTIAL_SCANS))
            await connection.close()
        return scans

    async def changes(self) -> list[tuple[str, str, str]]:
        """Return tables and columns, each with a statement that changes it in one row."""
        connection = await asyncpg.connect(self.urls()[0], ssl=False)
        rows = await connection.fetch(COLUMNS, list(CHANGED), list(OTHER_VALUES))
        await connection.close()
        return [
            (
                row["table"],
                row["column"],
                f"UPDATE {row['table']} SET {row['column']} = {OTHER_VALUES[row['type']]}"  # noqa: S608
                f" WHERE {CHANGED[row['table']]}".replace("COLUMN", row["column"]),
            )
            for row in rows
        ]

    async def execute(self, shard: int, statements: str) -> None:
        connection = await asyncpg.connect(self.urls("microfin")[shard], ssl=False)
        await connection.execute(statements)
        await connection.close()


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="session",
    params=[(1, False), (2, False), (2, True)],
    ids=["S=1", "S=2", "S=2, the first half in the archive"],
)
async def ledger(request: pytest.FixtureRequest, platform: Platform) -> Ledger:
    shards, archived = request.param
    name = f"audited_{shards}_{'archived' if archived else 'whole'}"
    databases = await make_ledger_databases(platform, name, shards, PARTITIONS)
    made = Ledger(platform, databases)
    random = Random(7)
    async with PostgresLedger(made.urls("microfin_worker"), PARTITIONS) as postgres:
        made.history = await ledger_history.begin(postgres, random)
        report = await audit(made.urls(), since=True)
        assert report.ok, report.violations
        assert report.mode == "full"
        if archived:
            for shard in range(shards):
                await made.execute(shard, TURN)
        before = list(made.history.holds)
        await ledger_history.move_money(postgres, made.history, random, 80)
        await ledger_history.finish(postgres, made.history)
        if archived:  # an open hold would keep its volume
            await ledger_history.end(postgres, before)
    if archived:
        urls = made.urls("microfin")
        moved = await archive(
            urls, await make_archives(platform, urls), older_than=timedelta(days=400)
        )
        assert [it.volume for it in moved if it.state == "archived"] == [0] * shards
        for shard in range(shards):  # for planted rows, which name no volume
            await made.execute(shard, NEWEST_VOLUME)
    await made.copy_rows()
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def spoilt(ledger: Ledger) -> AsyncIterator[Ledger]:
    """The ledger, whose rows are as they were once the test is over."""
    yield ledger
    await ledger.restore()


def invariants(report: AuditReport) -> set[int]:
    return {violation.invariant for violation in report.violations}


async def test_a_valid_history_passes(ledger: Ledger) -> None:
    report = await audit(ledger.urls(), at_rest=True)
    assert report.ok, report.violations
    assert report.violations_total == 0
    assert report.in_transit.operations == 0
    assert report.checked.accounts == 24 + 7
    assert report.checked.operations > 200
    assert report.checked.outcomes > report.checked.operations
    assert report.checked.entries > 200
    assert report.quarantine > 0
    assert report.shards == len(ledger.databases)


async def test_since_goes_on_where_the_last_audit_ended(spoilt: Ledger) -> None:
    urls = spoilt.urls()
    whole = await audit(urls)
    later = await audit(urls, since=True)
    assert later.ok, later.violations
    assert later.mode == "since"
    assert 50 < later.checked.outcomes < whole.checked.outcomes
    nothing = await audit(urls, since=True, at_rest=True)
    assert nothing.ok, nothing.violations
    assert nothing.checked.outcomes == nothing.checked.entries == 0


async def test_since_scans_no_table_that_grows(spoilt: Ledger) -> None:
    before = await spoilt.sequential_scans()
    report = await audit(spoilt.urls(), since=True, at_rest=True)
    assert report.ok, report.violations
    assert report.checked.outcomes > 50
    assert await spoilt.sequential_scans() == before


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_planted_corruption_is_found(spoilt: Ledger, name: str) -> None:
    place, statements, whole, since = CORRUPTIONS[name]
    await spoilt.corrupt(place, statements)
    urls = spoilt.urls()

    report = await audit(urls, at_rest=True)
    assert not report.ok
    assert whole <= invariants(report), report.violations
    assert all(violation.rows and violation.what for violation in report.violations)

    report = await audit(urls, since=True, at_rest=True)
    assert report.mode == "since"
    assert since <= invariants(report), report.violations
    assert report.ok == (not since)


@pytest.mark.parametrize("since", [False, True])
async def test_a_leg_decided_twice_on_one_shard_is_found(spoilt: Ledger, since: bool) -> None:
    await spoilt.execute(0, DROP_PRIMARY_KEYS)
    try:
        await spoilt.corrupt("source", DECIDED_TWICE)
        report = await audit(spoilt.urls(), since=since)
        assert invariants(report) == {4}, report.violations
        (violation,) = report.violations
        assert violation.what == "one leg has two outcomes"
        assert len(violation.rows) == 2
    finally:
        await spoilt.restore()
        await spoilt.execute(0, ADD_PRIMARY_KEYS)


async def test_no_sweep_overlooks_what_a_check_finds(
    spoilt: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column of a row is changed in turn; then all checks run, whatever the sweeps say."""
    found = 0
    for table, column, change in await spoilt.changes():
        try:
            await spoilt.corrupt("source", change)
        except asyncpg.IntegrityConstraintViolationError:
            continue
        swept = await audit(spoilt.urls())
        with monkeypatch.context() as every_check:
            every_check.setattr(whole.WholeShard, "_is_suspicious", lambda _: True)
            every_check.setattr(whole.WholeShard, "_versions_need_a_look", lambda _: True)
            checked = await audit(spoilt.urls())
        assert swept.violations_total == checked.violations_total, (table, column)
        assert invariants(swept) == invariants(checked), (table, column)
        found += not checked.ok
        await spoilt.restore()
    assert found > 20


async def test_one_connection_to_a_shard_is_enough(
    spoilt: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microfin_tools.audit.shard._SECOND_WITHIN", 0)
    report = await audit(spoilt.urls(), at_rest=True)
    assert report.ok, report.violations
    place, statements, whole_audit, _ = CORRUPTIONS["entry amount changed"]
    await spoilt.corrupt(place, statements)
    report = await audit(spoilt.urls(), at_rest=True)
    assert whole_audit <= invariants(report)


async def test_a_request_decided_on_two_shards_is_found(spoilt: Ledger) -> None:
    if len(spoilt.databases) == 1:
        return
    urls = spoilt.urls("microfin")
    source = await asyncpg.connect(urls[0], ssl=False)
    row = await source.fetchval(
        "SELECT to_jsonb(outcomes) FROM outcomes WHERE operation_id = $1", spoilt.history.rejected
    )
    await source.close()
    destination = await asyncpg.connect(urls[1], ssl=False)
    await destination.execute(
        "INSERT INTO outcomes SELECT * FROM jsonb_populate_record(NULL::outcomes,"
        " $1::jsonb || (SELECT jsonb_build_object('partition', partition, 'log_offset',"
        " next_offset - 1) FROM partitions WHERE partition = 1))",
        row,
    )
    await destination.close()
    for since in (False, True):
        report = await audit(urls, since=since)
        assert invariants(report) == {4}, report.violations


async def test_many_violations_are_counted_and_some_listed(spoilt: Ledger) -> None:
    for place in ("source", "destination"):
        await spoilt.corrupt(
            place,
            "DELETE FROM outcomes; UPDATE accounts SET entry_time = entry_time + interval '1 ms'",
        )
    report = await audit(spoilt.urls())
    assert report.violations_total > len(report.violations) == 100


async def test_what_is_in_transit_is_counted_and_only_at_rest_a_violation(spoilt: Ledger) -> None:
    urls = spoilt.urls()
    history = spoilt.history
    async with PostgresLedger(spoilt.urls("microfin_worker"), PARTITIONS) as postgres:
        postgres.request(
            "transfer", history.anna, user=ledger_history.ANNA, to=history.bert, amount="1"
        )
        await postgres.settle(0)

        async def log_ends() -> dict[int, int]:
            return dict(enumerate(postgres.offsets))

        report = await audit(urls, log_ends=log_ends)
        assert report.ok, report.violations
        assert (report.in_transit.operations, report.in_transit.in_outbox) == (1, 1)
        assert report.outbox == 1
        assert report.in_transit.oldest_seconds is not None

        await postgres.settle(0)  # The broker has acknowledged: now it is only in the log.
        for since in (False, True):
            report = await audit(urls, log_ends=log_ends, since=since)
            assert report.ok, report.violations
            assert (report.in_transit.operations, report.in_transit.in_outbox) == (1, 0)
        report = await audit(urls, at_rest=True)
        assert invariants(report) == {8}

        await postgres.settle(1)
        report = await audit(urls, at_rest=True, since=True)
        assert report.ok, report.violations
        assert report.checked.outcomes == 1


async def test_a_live_audit_that_knows_the_log_distinguishes_lost_from_under_way(
    spoilt: Ledger,
) -> None:
    await spoilt.corrupt("destination", UNDO_CREDIT)
    urls = spoilt.urls()
    blind = await audit(urls)
    assert blind.ok, blind.violations
    assert blind.in_transit.operations == 1

    ends = await spoilt.places()

    async def log_ends() -> dict[int, int]:
        return ends

    report = await audit(urls, log_ends=log_ends)
    assert invariants(report) == {8}
    (violation,) = report.violations
    assert violation.rows[0]["operation"] == spoilt.history.crossed


async def test_closed_accounts_with_money_are_listed(spoilt: Ledger) -> None:
    history = spoilt.history
    async with PostgresLedger(spoilt.urls("microfin_worker"), PARTITIONS) as postgres:
        everything = "50"
        postgres.request("deposit", history.emil, user=ledger_history.ANNA, amount=everything)
        postgres.request(
            "transfer",
            history.emil,
            user=ledger_history.ANNA,
            to=history.dora,
            amount=everything,
        )
        postgres.request("set_state", history.emil, state="closed")
        await postgres.drain()
    report = await audit(spoilt.urls(), at_rest=True)
    assert report.ok, report.violations
    assert [row["account"] for row in report.closed_with_balance] == [history.emil]
    assert report.closed_with_balance[0]["balance"] == 5000


async def test_a_live_audit_finds_nothing_where_nothing_is_wrong(spoilt: Ledger) -> None:
    urls = spoilt.urls()
    random = Random(11)
    async with PostgresLedger(spoilt.urls("microfin_worker"), PARTITIONS) as postgres:
        postgres.keys = count(1_000_000)  # none that an archive has

        async def log_ends() -> dict[int, int]:
            return dict(enumerate(postgres.offsets))

        ended = asyncio.Event()

        async def work(partition: int) -> None:
            while not ended.is_set():
                await postgres.settle(partition, random.randint(1, 20))
                await asyncio.sleep(random.choice((0, 0.001, 0.02)))

        async def ask() -> None:
            while not ended.is_set():
                source, destination = random.sample(list(spoilt.history.owners), 2)
                user = spoilt.history.owners[source]
                postgres.request("transfer", source, user=user, to=destination, amount="1")
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            for partition in range(PARTITIONS):
                group.create_task(work(partition))
            group.create_task(ask())
            for number in range(20):
                report = await audit(
                    urls,
                    since=number % 2 == 1,
                    log_ends=log_ends if number % 3 else None,
                )
                assert report.ok, report.violations
            ended.set()
        await postgres.drain()
    report = await audit(urls, at_rest=True)
    assert report.ok, report.violations


async def test_a_ledger_that_grew_twice_while_its_clock_went_back_passes(
    platform: Platform,
) -> None:
    shards = 2
    databases = await make_ledger_databases(platform, "audited_grown", shards, 4)
    ledger = Ledger(platform, databases)
    random = Random(5)
    async with PostgresLedger(ledger.urls("microfin_worker"), 4) as postgres:
        history = await ledger_history.begin(postgres, random)
        for partitions in (6, 8, 12, 12):
            for _ in range(2):
                await ledger_history.move_money(postgres, history, random, 100)
                postgres.time -= random.choice((0, 30))
                report = await audit(ledger.urls(), since=random.random() < 0.5)
                assert report.ok, report.violations
            if partitions > postgres.routing.partition_count:
                await postgres.grow(partitions)
        await postgres.drain()
    for since in (True, False):
        report = await audit(ledger.urls(), at_rest=True, since=since)
        assert report.ok, report.violations
    moved = "SELECT count(DISTINCT partition) FROM entries GROUP BY account"
    rejected = "SELECT count(*) FROM outcomes WHERE available IS NOT NULL"
    later = "SELECT count(*) FROM entries JOIN outcomes o USING (operation_id, leg)"
    connection = await asyncpg.connect(ledger.urls()[0], ssl=False)
    assert max(row[0] for row in await connection.fetch(moved)) >= 3
    assert await connection.fetchval(rejected) > 10
    assert await connection.fetchval(later + " WHERE entries.at > o.at") > 10
    await connection.close()


async def test_shards_of_different_generations_pass(spoilt: Ledger) -> None:
    routing = "generation = generation + 1, partition_count = partition_count * 2"
    growth = f"UPDATE routing SET {routing}; UPDATE partitions SET {routing};"  # noqa: S608 - ours
    await spoilt.execute(0, growth)
    for since in (False, True):
        report = await audit(spoilt.urls(), since=since)
        assert report.ok, report.violations


@pytest.mark.parametrize("since", [False, True])
async def test_a_partition_beyond_the_end_of_its_log_is_found(
    spoilt: Ledger, monkeypatch: pytest.MonkeyPatch, since: bool
) -> None:
    monkeypatch.setattr(log_places, "_PAUSES", (0.0, 0.0, 0.0))
    ends = await spoilt.places()

    async def log_ends() -> dict[int, int]:
        return {**ends, 1: ends[1] - 1}

    report = await audit(spoilt.urls(), log_ends=log_ends, since=since)
    assert invariants(report) == {5}
    (violation,) = report.violations
    assert violation.rows == [
        {"partition": 1, "next_offset": ends[1], "log_end": ends[1] - 1},
    ]


async def test_a_broker_that_is_behind_is_asked_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_places, "_PAUSES", (0.0, 0.0, 0.0))
    ends = await ledger.places()
    answers = [dict.fromkeys(ends, 0), {}, {**ends, 0: ends[0] + 7}]

    async def log_ends() -> dict[int, int]:
        return answers.pop(0)

    report = await audit(ledger.urls(), log_ends=log_ends)
    assert report.ok, report.violations
    assert not answers

    async def away() -> None:
        return None

    assert (await audit(ledger.urls(), log_ends=away)).ok


async def test_a_record_that_is_not_the_one_decided_last_is_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_places, "_PAUSES", (0.0, 0.0, 0.0))
    ends = await ledger.places()
    asked: list[Mapping[int, int]] = []
    decided = b"fingerprint"
    answers = {0: [decided], 1: [b"another", b"another", b"another"], 2: [b"another", decided]}

    async def log_ends() -> dict[int, int]:
        return ends

    async def fingerprints_at(offsets: Mapping[int, int]) -> dict[int, bytes]:
        asked.append(offsets)
        return {it: answers[it].pop(0) for it in offsets if it in answers}  # 3 was trimmed

    report = await audit(ledger.urls(), log_ends=log_ends, fingerprints_at=fingerprints_at)
    assert invariants(report) == {5}
    (violation,) = report.violations
    assert violation.rows[0]["partition"] == 1
    assert asked[0] == {partition: end - 1 for partition, end in ends.items()}
    assert [sorted(it) for it in asked[1:]] == [[1, 2], [1]]


async def test_progress_is_reported(ledger: Ledger) -> None:
    steps: list[tuple[str, int, int]] = []
    await audit(ledger.urls(), progress=lambda *step: steps.append(step))
    assert len(steps) > 10
    assert all(title and 0 <= done <= total for title, done, total in steps)
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


async def test_through_the_pooler(platform: Platform) -> None:
    databases = await make_ledger_databases(platform, "audited_pooled", 1, 2)
    for _ in range(2):
        report = await audit(
            [platform.postgres_pooled(0, "microfin_auditor", databases[0])], since=True
        )
        assert report.ok, report.violations


async def test_shards_in_another_order_are_refused(ledger: Ledger) -> None:
    urls = ledger.urls()
    with pytest.raises(AuditImpossible, match="in the same order"):
        await audit([*reversed(urls), urls[0]])


async def test_a_database_that_is_away_is_said_so() -> None:
    with pytest.raises(AuditImpossible, match="is it running"):
        await audit(["postgresql://microfin_auditor:x@127.0.0.1:1/microfin"])


async def test_another_role_is_refused_with_advice(ledger: Ledger) -> None:
    with pytest.raises(AuditImpossible, match="microfin_auditor"):
        await audit(ledger.urls("microfin_worker"), since=True)
