"""Archives of a ledger of the tests, and volumes that leave the ledger for them, step by step."""

import asyncio
from typing import Any, Final, Self

import asyncpg

from microfin_tools.migrations.run import migrate_archives
from support.api_under_test import Ledger

_TABLES: Final = ("outcomes", "entries")


class Archives:
    """An archive for each shard of `ledger`, and the owner's connections to both."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.databases = [f"{database}_archive" for database in ledger.databases]
        self.live: list[Any] = []
        self.archives: list[Any] = []

    async def __aenter__(self) -> Self:
        platform = self.ledger.platform
        for database in self.databases:
            await platform.create_database(database)
        self.live = [await self._connect(database) for database in self.ledger.databases]
        await asyncio.to_thread(
            migrate_archives,
            [self._url(it) for it in self.ledger.databases],
            [self._url(it) for it in self.databases],
        )
        self.archives = [await self._connect(database) for database in self.databases]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in (*self.live, *self.archives):
            await connection.close()

    @property
    def urls(self) -> str:
        """The setting of an API that reads the archives."""
        return " ".join(
            self.ledger.platform.environment("api", database, self.ledger.name)[
                "MICROFIN_DATABASES"
            ]
            for database in self.databases
        )

    async def turn(self, shard: int = 0) -> int:
        """Begin a new volume, and return the number of the one that is full now."""
        live = self.live[shard]
        await live.execute("UPDATE routing SET outcomes_per_volume = 1")
        following = await live.fetchval("SELECT turn_volume()")
        await live.execute("UPDATE routing SET outcomes_per_volume = 4000000")
        assert following is not None, "nothing was written to the newest volume"
        return int(following) - 1

    async def copy(self, volume: int, shard: int = 0) -> None:
        """Put a full volume into the archive; the ledger has it as well."""
        archive, home = self.archives[shard], f"volume_{volume}"
        rows = {
            table: await self.live[shard].fetch(f"SELECT * FROM {home}.{table}")  # noqa: S608
            for table in _TABLES
        }
        async with archive.transaction():
            await archive.execute("SELECT make_volume($1)", volume)
            for table in _TABLES:
                await archive.copy_records_to_table(
                    table,
                    schema_name=home,
                    records=[tuple(row) for row in rows[table]],
                    columns=list(rows[table][0].keys()),
                )
            await archive.execute("SELECT take_volume_over($1, '{}', '{}')", volume)

    async def leave(self, volume: int, shard: int = 0) -> None:
        """Let a volume leave the ledger, as the last step of archiving it."""
        live = self.live[shard]
        async with live.transaction():
            await self.leave_within(volume, shard)

    async def leave_within(self, volume: int, shard: int = 0) -> None:
        """Do the same in a transaction that has begun."""
        live = self.live[shard]
        await live.execute("SELECT note_archived_volume($1, 0, 0, 0, 0, '{}', '{}')", volume)
        await live.execute("SELECT drop_archived_volume($1)", volume)

    async def archive(self, shard: int = 0) -> int:
        """Begin a new volume, and archive the one before."""
        volume = await self.turn(shard)
        await self.copy(volume, shard)
        await self.leave(volume, shard)
        return volume

    def _url(self, database: str) -> str:
        return self.ledger.platform.postgres_direct(database=database)

    async def _connect(self, database: str) -> Any:
        return await asyncpg.connect(self._url(database), ssl=False)
