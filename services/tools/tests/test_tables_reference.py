"""docs/reference/tables.md describes every table and column of the schema."""

import re
from pathlib import Path

import asyncpg

from microfin_local.platform import Platform
from support.postgres_ledger import make_ledger_databases

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "tables.md"


async def test_every_table_and_column_is_described(platform: Platform) -> None:
    (database,) = await make_ledger_databases(platform, "tables_reference", 1, 1)
    connection = await asyncpg.connect(platform.postgres_direct(0, database=database), ssl=False)
    rows = await connection.fetch(
        "SELECT table_name, array_agg(column_name::text) FROM information_schema.columns"
        " WHERE table_schema = 'public' GROUP BY table_name"
    )
    await connection.close()
    sections = re.split(r"^## ", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    described = {
        section.splitlines()[0].strip(): set(re.findall(r"`(\w+)`", section))
        for section in sections
    }
    assert set(described) == {table for table, _ in rows}
    for table, columns in rows:
        assert set(columns) - described[table] == set(), table
