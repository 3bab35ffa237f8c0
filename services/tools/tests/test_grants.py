"""Who may do what in a shard: docs/reference/grants.md against the catalogue, and tried."""

import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from microfin_local.platform import Platform
from support.postgres_ledger import PostgresLedger, make_ledger_databases

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "grants.md"
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")
ROLES = ("microfin_worker", "microfin_api", "microfin_auditor")

_ON_TABLES = """
SELECT grantee::regrole::text AS role, relname AS name, privilege_type AS verb, '' AS "column"
FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND grantee <> relowner
UNION ALL
SELECT grantee::regrole::text, relname, privilege_type, attname
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
"""
_ON_FUNCTIONS = """
SELECT grantee::regrole::text AS role, proname AS name FROM pg_proc,
    aclexplode(coalesce(proacl, acldefault('f', proowner)))
WHERE pronamespace = 'public'::regnamespace AND grantee <> proowner
"""
_OF_EVERYBODY = """
SELECT privilege_type FROM pg_namespace, aclexplode(nspacl)
WHERE nspname = 'public' AND grantee = 0
UNION ALL
SELECT privilege_type FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
WHERE datname = current_database() AND grantee = 0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shard(platform: Platform) -> AsyncIterator[tuple[Platform, str, str]]:
    """A shard with one account."""
    (database,) = await make_ledger_databases(platform, "grants", 1, 1)
    url = platform.postgres_direct(0, "microfin_worker", database)
    async with PostgresLedger([url], 1) as ledger:
        number = ledger.open("a" * 32, "EUR", 0)
        await ledger.drain()
        yield platform, database, number


async def connect(shard: tuple[Platform, str, str], role: str) -> asyncpg.Connection:
    platform, database, _ = shard
    return await asyncpg.connect(platform.postgres_direct(0, role, database), ssl=False)


async def test_the_reference_is_the_catalogue(shard: tuple[Platform, str, str]) -> None:
    owner = await connect(shard, "microfin")
    granted = await owner.fetch(_ON_TABLES)
    functions = {(row["role"], row["name"]) for row in await owner.fetch(_ON_FUNCTIONS)}
    everybody = {row[0] for row in await owner.fetch(_OF_EVERYBODY)}
    await owner.close()
    assert {row["role"] for row in granted} == set(ROLES)
    assert _table(granted) == _documented()
    assert functions == {
        ("microfin_worker", "moment"),
        ("microfin_worker", "write_batch"),
        ("microfin_worker", "turn_volume"),
        ("microfin_worker", "sum_up_volume"),
        ("microfin_worker", "decided_before"),
        ("microfin_api", "open_session"),
        ("microfin_api", "attempts_of"),
        ("microfin_api", "end_of_hold"),
        *product(ROLES, ("operation_chunk", "operation_bits", "volumes_of_operations", "legs_of")),
        *product(
            ("microfin_api", "microfin_auditor"),
            (
                "account_chunk",
                "account_bits",
                "volumes_of_account",
                "entries_of",
                "last_seq_before",
            ),
        ),
    }
    assert everybody == {"USAGE", "CONNECT"}


def _table(granted: list[asyncpg.Record]) -> list[str]:
    """Return the lines of the reference's table, as the catalogue has it."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in granted:
        verbs = found.setdefault((row["role"], row["name"]), {verb: [] for verb in VERBS})
        assert row["verb"] in VERBS, row
        verbs[row["verb"]].append(row["column"])
    return [
        f"| `{role}` | `{table}` | {' | '.join(_cell(verbs[verb]) for verb in VERBS)} |"
        for (role, table), verbs in sorted(found.items())
    ]


def _cell(columns: list[str]) -> str:
    """Return which columns a verb is granted on; "all" where it is the table."""
    if "" in columns:
        return "all"
    return ", ".join(f"`{column}`" for column in sorted(columns)) or "-"


def _documented() -> list[str]:
    return re.findall(r"^\| `microfin_.*$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


REFUSED = [
    ("microfin_worker", "UPDATE accounts SET owner = gen_random_uuid()"),
    ("microfin_worker", "UPDATE accounts SET currency = 'USD'"),
    ("microfin_worker", "UPDATE accounts SET number = '000000000000'"),
    ("microfin_worker", "UPDATE accounts SET opened_at = now()"),
    ("microfin_worker", "DELETE FROM accounts"),
    ("microfin_worker", "UPDATE routing SET shard = 0"),
    ("microfin_worker", "UPDATE routing SET shards = 1"),
    ("microfin_worker", "UPDATE partitions SET partition = 1"),
    ("microfin_worker", "UPDATE contra_balances SET partition = 1"),
    ("microfin_worker", "UPDATE outbox SET command = ''"),
    ("microfin_worker", "UPDATE outcomes SET at = now()"),
    ("microfin_worker", "UPDATE entries SET at = now()"),
    ("microfin_worker", "SELECT 1 FROM users"),
    ("microfin_worker", "SELECT 1 FROM sessions"),
    ("microfin_worker", "SELECT open_session(gen_random_uuid(), 0, '', 60, 1)"),
    ("microfin_worker", "CREATE TABLE mine (x integer)"),
    ("microfin_worker", "CREATE TEMPORARY TABLE accounts (x integer)"),
    ("microfin_worker", "ALTER TABLE accounts DISABLE TRIGGER USER"),
    ("microfin_api", "UPDATE users SET id = gen_random_uuid()"),
    ("microfin_api", "UPDATE users SET email = ''"),
    ("microfin_api", "DELETE FROM users"),
    ("microfin_api", "UPDATE sessions SET user_id = gen_random_uuid()"),
    ("microfin_api", "UPDATE sessions SET created_at = now()"),
    ("microfin_api", "UPDATE accounts SET balance = 1"),
    ("microfin_api", "INSERT INTO outcomes DEFAULT VALUES"),
    ("microfin_api", "SELECT moment(1)"),
    ("microfin_api", "SELECT decided_before('{}', '{}', 0)"),
    ("microfin_api", "INSERT INTO account_summaries DEFAULT VALUES"),
    ("microfin_worker", "SELECT entries_of('', 0, 1, NULL, 1)"),
    ("microfin_auditor", "SELECT 1 FROM users"),
    ("microfin_auditor", "SELECT open_session(gen_random_uuid(), 0, '', 60, 1)"),
    ("microfin_auditor", "UPDATE accounts SET balance = 1"),
    ("microfin_auditor", "DELETE FROM audit_watermarks"),
]


@pytest.mark.parametrize(("role", "statement"), REFUSED)
async def test_what_is_not_granted_is_refused(
    shard: tuple[Platform, str, str], role: str, statement: str
) -> None:
    connection = await connect(shard, role)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE accounts SET owner = gen_random_uuid()",
        "UPDATE accounts SET balance = balance, currency = 'USD'",
        "UPDATE accounts SET number = '000000000000'",
        "UPDATE accounts SET opened_at = opened_at + interval '1 second'",
        "DELETE FROM accounts",
        "TRUNCATE accounts",
    ],
)
async def test_an_account_stays_whose_it_is_for_its_owner_too(
    shard: tuple[Platform, str, str], change: str
) -> None:
    connection = await connect(shard, "microfin")
    try:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(change)
        assert await connection.fetchval("SELECT number FROM accounts") == shard[2]
    finally:
        await connection.close()
