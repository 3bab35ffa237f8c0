"""The auditor against valid histories, planted corruptions, and a ledger that is being used."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from random import Random

import asyncpg
import ledger_history
import pytest
import pytest_asyncio
from ledger_history import History
from postgres_ledger import (
    PostgresLedger,
    copy_database,
    drop_database,
    make_ledger_databases,
)

from microfin.audit import AuditImpossible, AuditReport, audit
from microfin_local.platform import Platform

PARTITIONS = ledger_history.PARTITIONS
CORRUPT = "ALTER TABLE outcomes DISABLE TRIGGER USER; ALTER TABLE entries DISABLE TRIGGER USER;"

LAST = "(SELECT max(seq) FROM entries WHERE account = '{anna}')"

# What the credit of `crossed` did, taken back without a trace on the destination's shard.
UNDO_CREDIT = """
    DELETE FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'credit';
    DELETE FROM entries WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE accounts SET balance = balance - 700, seq = seq - 1,
        entry_time = (SELECT max(at) FROM entries WHERE account = '{bert}') WHERE number = '{bert}';
    UPDATE contra_balances SET balance = balance + 700
        WHERE partition = 1 AND contra = 'in_transit' AND currency = 'EUR';
"""
# What the refund of `refunded` did, taken back; that of `crossed` came after it.
UNDO_REFUND = """
    DELETE FROM outcomes WHERE operation_id = '{refunded}' AND leg = 'refund';
    DELETE FROM entries WHERE operation_id = '{refunded}' AND leg = 'refund';
    UPDATE entries SET seq = seq - 1, balance_after = balance_after - 300
        WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE outcomes SET seq = seq - 1, balance = balance - 300
        WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE accounts SET balance = balance - 300, seq = seq - 1 WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance + 300
        WHERE partition = 0 AND contra = 'in_transit' AND currency = 'EUR';
"""
# One more entry on Anna's account, with everything but an outcome.
ONE_MORE_ENTRY = """
    INSERT INTO entries SELECT account, seq + 1, 100, balance_after + 100, {operation}, 'request',
        'deposit', 'cash', '', partition, at
    FROM entries WHERE account = '{anna}' AND seq = LAST;
    UPDATE accounts SET balance = balance + 100, seq = seq + 1 WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance - 100
        WHERE partition = 0 AND contra = 'cash' AND currency = 'EUR';
"""
BOTH_CREDIT_AND_REFUND = """
    INSERT INTO outcomes SELECT operation_id, 'refund', kind, 'settled', account, counterparty,
        user_id, amount, currency, seq + 1, balance + amount, NULL, '', '', NULL, NULL, body_hash,
        partition, log_offset, at
    FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'request';
    INSERT INTO entries SELECT account, seq + 1, -amount, balance_after - amount, operation_id,
        'refund', kind, contra, counterparty, partition, at
    FROM entries WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE accounts SET balance = balance + 700, seq = seq + 1 WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance - 700
        WHERE partition = 0 AND contra = 'in_transit' AND currency = 'EUR';
"""
ANOTHER_CREDIT_AMOUNT = """
    UPDATE outcomes SET amount = amount + 1, balance = balance + 1
        WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE entries SET amount = amount + 1, balance_after = balance_after + 1
        WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE accounts SET balance = balance + 1 WHERE number = '{bert}';
    UPDATE contra_balances SET balance = balance - 1
        WHERE partition = 1 AND contra = 'in_transit' AND currency = 'EUR';
"""
REJECTED = "status = 'rejected', reason = 'expired'"
THE_DEPOSIT = "operation_id = '{deposit}'"

# Name: shard ("source" is Anna's, "destination" Bert's), statements, the invariants that a full
# audit names at least, and those that one with --since does.
CORRUPTIONS: dict[str, tuple[str, str, set[int], set[int]]] = {
    "balance changed": (
        "source",
        "UPDATE accounts SET balance = balance + 1 WHERE number = '{anna}'",
        {1, 3},
        {3},
    ),
    "contra balance changed": (
        "source",
        "UPDATE contra_balances SET balance = balance + 1 WHERE partition = 0 AND contra = 'cash'"
        " AND currency = 'EUR'",
        {1},
        {1},
    ),
    "contra balance deleted": (
        "source",
        "DELETE FROM contra_balances WHERE partition = 0 AND contra = 'cash'",
        {1},
        {1},
    ),
    "last entry deleted": (
        "source",
        "DELETE FROM entries WHERE account = '{anna}' AND seq = LAST",
        {1, 3, 4},
        {3, 4},
    ),
    "middle entry deleted": (
        "source",
        f"DELETE FROM entries WHERE {THE_DEPOSIT}",
        {1, 3, 4},
        {3, 4},
    ),
    "receiver's entry of a transfer in one decision deleted": (
        "source",
        "DELETE FROM entries WHERE operation_id = '{inside}' AND account = '{carl}'",
        {1, 3, 4},
        {3, 4},
    ),
    "entry amount changed": (
        "source",
        f"UPDATE entries SET amount = amount + 1 WHERE {THE_DEPOSIT}",
        {1, 3, 4},
        {3, 4},
    ),
    "gap in seq": (
        "source",
        "UPDATE entries SET seq = seq + 1 WHERE account = '{anna}' AND seq = LAST;"
        "UPDATE accounts SET seq = seq + 1 WHERE number = '{anna}'",
        {3, 4},
        {3, 4},
    ),
    "seq of the account behind": (
        "source",
        "UPDATE accounts SET seq = seq - 1 WHERE number = '{anna}'",
        {3},
        {3},
    ),
    "balance_after broken": (
        "source",
        f"UPDATE entries SET balance_after = balance_after + 1 WHERE {THE_DEPOSIT}",
        {3, 4},
        {3, 4},
    ),
    "time goes back": (
        "source",
        "UPDATE entries SET at = at - interval '1 day' WHERE account = '{anna}' AND seq = LAST",
        {3, 4},
        {3, 4},
    ),
    "one effect twice": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "'{deposit}'"),
        {4},
        {4},
    ),
    "entry without an outcome": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "gen_random_uuid()"),
        {4},
        {4},
    ),
    "rejected outcome with an entry": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "'{rejected}'"),
        {4},
        {4},
    ),
    "outcome deleted": ("source", f"DELETE FROM outcomes WHERE {THE_DEPOSIT}", {4}, {4}),
    "outcome now rejected": (
        "source",
        f"UPDATE outcomes SET {REJECTED} WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "outcome of another amount": (
        "source",
        f"UPDATE outcomes SET amount = amount + 1 WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "outcome of another account": (
        "source",
        f"UPDATE outcomes SET account = '{{carl}}' WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "debit now settled": (
        "source",
        "UPDATE outcomes SET status = 'settled' WHERE operation_id = '{crossed}'"
        " AND leg = 'request'",
        {4, 8},
        {4, 8},
    ),
    "credit deleted": ("destination", UNDO_CREDIT, {8}, {8}),
    "refund deleted": ("source", UNDO_REFUND, {8}, {8}),
    "credit and refund": ("source", BOTH_CREDIT_AND_REFUND, {8}, {8}),
    "refund without a rejected credit": (
        "destination",
        "DELETE FROM outcomes WHERE operation_id = '{refunded}' AND leg = 'credit'",
        {8},
        {8},
    ),
    "credit without its request": (
        "source",
        "DELETE FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'request'",
        {4, 8},
        {4, 8},
    ),
    "credit of another amount": ("destination", ANOTHER_CREDIT_AMOUNT, {8}, {8}),
    "credit from another account": (
        "destination",
        "UPDATE outcomes SET counterparty = '{carl}' WHERE operation_id = '{crossed}'"
        " AND leg = 'credit'; UPDATE entries SET counterparty = '{carl}'"
        " WHERE operation_id = '{crossed}' AND leg = 'credit'",
        {8},
        {8},
    ),
    "negative balance": (
        "source",
        "ALTER TABLE accounts DROP CONSTRAINT accounts_balance_check;"
        "UPDATE accounts SET balance = -1 WHERE number = '{anna}'",
        {1, 2, 3},
        {2, 3},
    ),
    "negative balance after an entry": (
        "source",
        "ALTER TABLE entries DROP CONSTRAINT entries_balance_after_check;"
        f"UPDATE entries SET balance_after = -1 WHERE {THE_DEPOSIT}",
        {2, 3, 4},
        {2, 3, 4},
    ),
    "another currency": (
        "source",
        "UPDATE accounts SET currency = 'USD' WHERE number = '{anna}'",
        {1, 4},
        {4},
    ),
    "another contra account": (
        "source",
        f"UPDATE entries SET contra = 'in_transit' WHERE {THE_DEPOSIT}",
        {1, 4},
        {4},
    ),
    "another owner": (
        "source",
        "UPDATE accounts SET owner = gen_random_uuid() WHERE number = '{anna}'",
        {4},
        {4},
    ),
    "account deleted": (
        "source",
        "DELETE FROM accounts WHERE number = '{anna}'",
        {1, 3, 4},
        {4},
    ),
    "account that nobody opened": (
        "source",
        "DELETE FROM outcomes WHERE account = '{emil}' AND kind = 'open'",
        {4},
        set(),
    ),
    "partition behind its outcomes": (
        "source",
        "UPDATE partitions SET next_offset = (SELECT max(log_offset) FROM outcomes"
        " WHERE partition = 0) WHERE partition = 0",
        {4},
        {4},
    ),
    "partition behind the last audit": (
        "source",
        "UPDATE partitions SET next_offset = 1 WHERE partition = 0",
        {4},
        {4, 5},
    ),
    "partition deleted": (
        "source",
        "DELETE FROM partitions WHERE partition = 0",
        {4},
        {5},
    ),
}

PLATFORM_NAMES = count()


class Ledger:
    """A template of databases with a history, and copies of it for tests that spoil theirs."""

    def __init__(self, platform: Platform, databases: list[str], history: History) -> None:
        self.platform = platform
        self.databases = databases
        self.history = history

    def urls(self, databases: list[str], role: str = "microfin_auditor") -> list[str]:
        return [self.platform.postgres_direct(0, role, database) for database in databases]

    async def copy(self) -> list[str]:
        name = f"audited_copy_{next(PLATFORM_NAMES)}"
        copies = [f"{name}_{shard}" for shard in range(len(self.databases))]
        for source, copy in zip(self.databases, copies, strict=True):
            await copy_database(self.platform, source, copy)
        return copies

    async def corrupt(self, databases: list[str], place: str, statements: str) -> None:
        account = self.history.anna if place == "source" else self.history.bert
        names = {field: getattr(self.history, field) for field in self.history.__struct_fields__}
        text = statements.replace("LAST", LAST).format(**names)
        shard = 0 if place == "source" else 1 % len(databases)
        assert account
        connection = await asyncpg.connect(self.urls(databases, "microfin")[shard], ssl=False)
        await connection.execute(CORRUPT + text)
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[1, 2], ids="S={}".format)
async def ledger(request: pytest.FixtureRequest, platform_parts: Platform) -> AsyncIterator[Ledger]:
    shards: int = request.param
    name = f"audited_{shards}"
    databases = await make_ledger_databases(platform_parts, name, shards, PARTITIONS)
    made = Ledger(platform_parts, databases, History([]))
    random = Random(7)
    async with PostgresLedger(made.urls(databases, "microfin_worker"), PARTITIONS) as postgres:
        made.history = await ledger_history.begin(postgres, random)
        report = await audit(made.urls(databases), since=True)
        assert report.ok, report.violations
        assert report.mode == "full"
        await ledger_history.move_money(postgres, made.history, random, 80)
        await ledger_history.finish(postgres, made.history)
    yield made
    for database in databases:
        await drop_database(platform_parts, database)


@pytest_asyncio.fixture(loop_scope="session")
async def copies(ledger: Ledger) -> AsyncIterator[list[str]]:
    made = await ledger.copy()
    yield made
    for database in made:
        await drop_database(ledger.platform, database)


def invariants(report: AuditReport) -> set[int]:
    return {violation.invariant for violation in report.violations}


async def test_a_valid_history_passes(ledger: Ledger) -> None:
    report = await audit(ledger.urls(ledger.databases), at_rest=True)
    assert report.ok, report.violations
    assert report.violations_total == 0
    assert report.in_transit.operations == 0
    assert report.checked.accounts == 24 + 5
    assert report.checked.operations > 200
    assert report.checked.outcomes > report.checked.operations
    assert report.checked.entries > 200
    assert report.quarantine > 0
    assert report.shards == len(ledger.databases)


async def test_since_goes_on_where_the_last_audit_ended(ledger: Ledger, copies: list[str]) -> None:
    urls = ledger.urls(copies)
    whole = await audit(urls)
    later = await audit(urls, since=True)
    assert later.ok, later.violations
    assert later.mode == "since"
    assert 50 < later.checked.outcomes < whole.checked.outcomes
    nothing = await audit(urls, since=True, at_rest=True)
    assert nothing.ok, nothing.violations
    assert nothing.checked.outcomes == nothing.checked.entries == 0


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_planted_corruption_is_found(ledger: Ledger, copies: list[str], name: str) -> None:
    place, statements, whole, since = CORRUPTIONS[name]
    await ledger.corrupt(copies, place, statements)
    urls = ledger.urls(copies)

    report = await audit(urls, at_rest=True)
    assert not report.ok
    assert whole <= invariants(report), report.violations
    assert all(violation.rows and violation.what for violation in report.violations)

    report = await audit(urls, since=True, at_rest=True)
    assert report.mode == "since"
    assert since <= invariants(report), report.violations
    assert report.ok == (not since)


async def test_a_request_decided_on_two_shards_is_found(ledger: Ledger, copies: list[str]) -> None:
    if len(copies) == 1:
        return
    urls = ledger.urls(copies, "microfin")
    source = await asyncpg.connect(urls[0], ssl=False)
    row = await source.fetchval(
        "SELECT to_jsonb(outcomes) FROM outcomes WHERE operation_id = $1", ledger.history.rejected
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


async def test_many_violations_are_counted_and_some_listed(
    ledger: Ledger, copies: list[str]
) -> None:
    await ledger.corrupt(copies, "source", "DELETE FROM outcomes WHERE leg = 'request'")
    report = await audit(ledger.urls(copies))
    assert report.violations_total > len(report.violations) == 100


async def test_what_is_in_transit_is_counted_and_only_at_rest_a_violation(
    ledger: Ledger, copies: list[str]
) -> None:
    urls = ledger.urls(copies)
    history = ledger.history
    async with PostgresLedger(ledger.urls(copies, "microfin_worker"), PARTITIONS) as postgres:
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


async def test_a_live_audit_that_knows_the_log_tells_lost_from_under_way(
    ledger: Ledger, copies: list[str]
) -> None:
    await ledger.corrupt(copies, "destination", UNDO_CREDIT)
    urls = ledger.urls(copies)
    blind = await audit(urls)
    assert blind.ok, blind.violations
    assert blind.in_transit.operations == 1

    async def log_ends() -> dict[int, int]:
        return dict.fromkeys(range(PARTITIONS), 1)

    report = await audit(urls, log_ends=log_ends)
    assert invariants(report) == {8}
    (violation,) = report.violations
    assert violation.rows[0]["operation"] == ledger.history.crossed


async def test_closed_accounts_with_money_are_listed(ledger: Ledger, copies: list[str]) -> None:
    history = ledger.history
    async with PostgresLedger(ledger.urls(copies, "microfin_worker"), PARTITIONS) as postgres:
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
    report = await audit(ledger.urls(copies), at_rest=True)
    assert report.ok, report.violations
    assert [row["account"] for row in report.closed_with_balance] == [history.emil]
    assert report.closed_with_balance[0]["balance"] == 5000


async def test_a_live_audit_finds_nothing_where_nothing_is_wrong(
    ledger: Ledger, copies: list[str]
) -> None:
    urls = ledger.urls(copies)
    random = Random(11)
    async with PostgresLedger(ledger.urls(copies, "microfin_worker"), PARTITIONS) as postgres:

        async def log_ends() -> dict[int, int]:
            return dict(enumerate(postgres.offsets))

        async def work(partition: int) -> None:
            while True:
                await postgres.settle(partition, random.randint(1, 20))
                await asyncio.sleep(random.choice((0, 0.001, 0.02)))

        async def ask() -> None:
            while True:
                source, destination = random.sample(ledger.history.accounts, 2)
                user = random.choice((ledger_history.ANNA, ledger_history.BERT))
                postgres.request("transfer", source, user=user, to=destination, amount="1")
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(partition)) for partition in range(PARTITIONS)]
            tasks.append(group.create_task(ask()))
            for number in range(20):
                report = await audit(
                    urls,
                    since=number % 2 == 1,
                    log_ends=log_ends if number % 3 else None,
                )
                assert report.ok, report.violations
            for task in tasks:
                task.cancel()
        await postgres.drain()
    report = await audit(urls, at_rest=True)
    assert report.ok, report.violations


async def test_progress_is_told(ledger: Ledger) -> None:
    told: list[tuple[str, int, int]] = []
    await audit(ledger.urls(ledger.databases), progress=lambda *step: told.append(step))
    assert len(told) > 10
    assert all(title and 0 <= done <= total for title, done, total in told)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


async def test_through_the_pooler(platform_parts: Platform) -> None:
    databases = await make_ledger_databases(platform_parts, "audited_pooled", 1, 2)
    for _ in range(2):
        report = await audit(
            [platform_parts.postgres_pooled(0, "microfin_auditor", databases[0])], since=True
        )
        assert report.ok, report.violations


@pytest.fixture
def direct(platform_parts: Platform) -> Iterator[Platform]:
    yield platform_parts


async def test_shards_in_another_order_are_refused(ledger: Ledger) -> None:
    urls = ledger.urls(ledger.databases)
    with pytest.raises(AuditImpossible, match="in the same order"):
        await audit([*reversed(urls), urls[0]])


async def test_a_database_that_is_away_is_said_so() -> None:
    with pytest.raises(AuditImpossible, match="is it running"):
        await audit(["postgresql://microfin_auditor:x@127.0.0.1:1/microfin"])


async def test_another_role_is_refused_with_advice(ledger: Ledger) -> None:
    with pytest.raises(AuditImpossible, match="microfin_auditor"):
        await audit(ledger.urls(ledger.databases, "microfin_worker"), since=True)
