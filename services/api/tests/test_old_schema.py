"""A database whose schema is older than this release needs: nobody works with it, and all say so.

A retry of an upgrade, a hook that was switched off or a restored backup can leave such a database.
A newer schema is the next release's, whose `microfin migrate` comes before its processes.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import microfin_tools.migrations
from microfin.postgres.shards import NEEDED_SCHEMA
from microfin_local.platform import Platform
from microfin_tools.migrations.run import migrate
from support.api_under_test import PARTITIONS, Ledger, api_process
from support.ports import free_port
from support.waiting import until, until_ready

WITHOUT_VOLUMES = """
DROP FUNCTION attempts_of, end_of_hold;
DROP TABLE holds;
ALTER TABLE accounts DROP COLUMN held;
DROP FUNCTION volumes_of_operations, legs_of, decided_before, volumes_of_account, entries_of,
    last_seq_before, account_chunk, account_bits;
DROP TABLE account_summaries;
DROP TABLE shard_identity, archive, archived_volumes, archived_accounts, archived_contra_balances,
    archived_partitions;
DROP TRIGGER routing_is_of_no_archive ON routing;
DROP TRIGGER summaries_are_immutable ON volume_summaries;
DROP FUNCTION refuse_shard_and_archive, refuse_change_but_archiving, refuse_change_of_summary,
    volume_accounts, volume_contra_changes, note_archived_volume, drop_archived_volume,
    take_volume_over;
ALTER TABLE outcomes DETACH PARTITION volume_0.outcomes;
ALTER TABLE entries DETACH PARTITION volume_0.entries;
DROP TABLE outcomes, entries, volumes, volume_summaries;
ALTER TABLE partitions DROP COLUMN wire_epoch, DROP COLUMN wire_version;
ALTER TABLE volume_0.outcomes SET SCHEMA public;
ALTER TABLE volume_0.entries SET SCHEMA public;
DROP SCHEMA volume_0;
ALTER TABLE outcomes DROP COLUMN volume, DROP COLUMN reference, DROP COLUMN metadata,
    DROP COLUMN held, DROP COLUMN hold, DROP COLUMN held_change, DROP COLUMN hold_left,
    DROP COLUMN ends_at;
ALTER TABLE entries DROP COLUMN volume, DROP COLUMN reference;
DROP TRIGGER partitions_begin_in_newest_volume ON partitions;
ALTER TABLE partitions DROP COLUMN volume, DROP COLUMN outcomes_in_volume;
ALTER TABLE routing DROP COLUMN outcomes_per_volume;
DROP FUNCTION begin_in_newest_volume, make_volume, add_volume, turn_volume, sum_up_volume,
    operation_chunk, operation_bits;
UPDATE alembic_version SET version_num = '0007';
"""

OLDER = {
    "an older schema": (
        WITHOUT_VOLUMES,
        f"has schema 0007; this release needs {NEEDED_SCHEMA} or later: run `microfin migrate`",
    ),
    "a schema that an older release made": (
        "REVOKE SELECT ON alembic_version FROM microfin_worker, microfin_api, microfin_auditor",
        f"does not tell its schema; this release needs {NEEDED_SCHEMA} or later",
    ),
}


@pytest.fixture
async def ledger(platform: Platform, tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger whose workers do not run."""
    async with Ledger(platform, tmp_path) as ledger:
        await ledger.stop_workers()
        yield ledger


async def as_owner(ledger: Ledger, statement: str) -> None:
    url = ledger.platform.postgres_direct(database=ledger.databases[0])
    connection = await asyncpg.connect(url, ssl=False)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def worker_process(ledger: Ledger) -> AsyncIterator[str]:
    """Run a worker; give the URL of its own pages."""
    port = free_port()
    environment = {
        **os.environ,
        **ledger.environment("worker"),
        "MICROFIN_PARTITION": "0",
        "MICROFIN_WORKER_PORT": str(port),
    }
    with (ledger.folder / f"worker-{port}.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "microfin_worker"), env=environment, stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        await running.wait()


async def says(url: str, path: str, words: str) -> httpx.Response:
    """Return the answer of a process once it contains `words`."""

    async def asked() -> httpx.Response | None:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{url}{path}")
        return answer if words in answer.text else None

    answer: httpx.Response = await until(
        f"{path} says {words}", asked, not_yet=(httpx.TransportError,)
    )
    return answer


@pytest.mark.parametrize("what", OLDER)
async def test_nobody_works_with_an_older_schema_until_it_is_migrated(
    ledger: Ledger, what: str
) -> None:
    statement, words = OLDER[what]
    await as_owner(ledger, statement)
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(worker_process(ledger))
        api, _ = await stack.enter_async_context(api_process(ledger))
        status = (await says(worker, "/status", words)).json()
        assert status["state"] == "waiting", status
        assert (await says(worker, "/readyz", "")).status_code == 503
        assert (await says(api, "/readyz", words)).status_code == 503
        assert (await says(api, "/healthz", "ok")).status_code == 200
        log = "".join(it.read_text(encoding="utf-8") for it in ledger.folder.glob("api-*.log"))
        assert words in log
        url = ledger.platform.postgres_direct(database=ledger.databases[0])
        await asyncio.to_thread(migrate, [url], PARTITIONS)
        await asyncio.gather(until_ready(worker), until_ready(api))


async def test_the_schema_of_the_next_release_is_no_obstacle(ledger: Ledger) -> None:
    await as_owner(ledger, "UPDATE alembic_version SET version_num = '9999'")
    async with worker_process(ledger) as worker, api_process(ledger) as (api, _):
        await asyncio.gather(until_ready(worker), until_ready(api))


def test_processes_need_the_newest_revision() -> None:
    """A new revision is needed, or processes work without it: then say so here."""
    configuration = Config()
    folder = Path(microfin_tools.migrations.__path__[0])
    configuration.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(configuration).get_current_head() == NEEDED_SCHEMA
