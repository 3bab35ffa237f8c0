"""Archives of a ledger of the tests, and the steps by which volumes leave the ledger for them."""

import asyncio
from datetime import timedelta
from typing import Any, Self

import asyncpg

from microfin_tools.archive import archive
from microfin_tools.archive.volume_tables import copy
from microfin_tools.migrations.run import migrate_archives
from support.api_under_test import Ledger
from support.waiting import until


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

    async def archive(self) -> None:
        """Archive the volumes that are full, as `microfin archive` does, once one may go.

        A volume stays while a worker has not deleted the outbox rows of its transfers.
        """

        async def archived() -> bool:
            moved = await archive(
                [self._url(it) for it in self.ledger.databases],
                [self._url(it) for it in self.databases],
                older_than=timedelta(0),
            )
            return any(it.state == "archived" for it in moved)

        await until("a volume is archived", archived)

    async def turn_and_archive(self, shard: int = 0) -> None:
        """Begin a new volume, and archive what was there before."""
        await self.turn(shard)
        await self.archive()

    async def copy(self, volume: int) -> None:
        """Put a full volume of shard 0 into its archive, as the job's first half does."""
        async with self.archives[0].transaction():
            await self.archives[0].execute("SELECT make_volume($1)", volume)
            await copy(self.live[0], self.archives[0], volume)
            await self.archives[0].execute("SELECT take_volume_over($1, '{}', '{}')", volume)

    async def leave(self, volume: int) -> None:
        """Let a copied volume leave shard 0, in the transaction that the caller has begun."""
        await self.live[0].execute(
            "SELECT note_archived_volume($1, 0, 0, 0, 0, '{}', '{}')", volume
        )
        await self.live[0].execute("SELECT drop_archived_volume($1)", volume)

    def _url(self, database: str) -> str:
        return self.ledger.platform.postgres_direct(database=database)

    async def _connect(self, database: str) -> Any:
        return await asyncpg.connect(self._url(database), ssl=False)
