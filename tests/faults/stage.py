"""The platform that the rounds are played on: started, filled with accounts, ended."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

from faults import ledger_reading, schedule
from faults.clients import open_account, sign_up
from faults.clocks import Clocks
from faults.disk import SmallDisk
from faults.history import Asked
from faults.http_connection import Connections
from faults.ledger_reading import Mark
from faults.nemesis import Nemesis
from faults.rest import until_drained
from faults.teller import OwnAccount
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform

_PREFIX = "microfin-faults-"
_OWNER = "owner"
_DATABASES = "databases"
_ACCOUNTS_OF_A_CUSTOMER = 20
_AT_ONE_TIME = 40
_DISK_MEGABYTES = 1_500
_PATIENCE = 60.0

#: Cheap passwords, because nothing here is about them.
_SETTINGS = {"MICROFIN_ARGON2_MEMORY": "1024", "MICROFIN_ARGON2_TIME": "1"}


class Stage:
    """One platform with its accounts. `async with Stage(partitions, accounts, say) as stage`."""

    def __init__(self, partitions: int, accounts: int, say: Callable[[str], None]) -> None:
        self._partitions = partitions
        self._wanted = accounts
        self._say = say
        _forget_orphans()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        (self.folder / _OWNER).write_text(str(os.getpid()))
        self.accounts: list[OwnAccount] = []
        self.unresolved: list[Asked] = []
        self.mark = Mark({}, {})
        self.folder.chmod(0o711)
        self._disk = SmallDisk(self.folder / _DATABASES, _DISK_MEGABYTES)
        clocks = self._make_clocks()
        self.platform = self._make_platform(clocks)
        self.nemesis = Nemesis(self.platform, self._disk, clocks, say)
        self.connections = Connections(0)  # nobody listens before the platform has started

    async def __aenter__(self) -> Self:
        self._disk.mount()
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self) -> None:
        await self.platform.start()
        self.connections = Connections(self.platform.detours["client-nginx"].port)
        await self._fill()
        await until_drained(self.platform, _PATIENCE)
        self.mark = await ledger_reading.mark(self.url)

    def _make_clocks(self) -> Clocks:
        names = [
            *(f"worker-{it}" for it in range(self._partitions + 2 * schedule.GROWTH)),
            *(f"api-{it}" for it in range(schedule.API_PROCESSES)),
            *(f"kafka-{it}" for it in schedule.BROKERS),
            "postgres-0",
        ]
        return Clocks(self.folder / "clocks", names)

    def _make_platform(self, clocks: Clocks) -> Platform:
        return Platform(
            Configuration(
                state=self.folder / "state",
                workers=self._partitions,
                brokers=len(schedule.BROKERS),
                redis_replicas=1,
                api_processes=schedule.API_PROCESSES,
                random_ports=True,
                extra=_SETTINGS,
                proxy=(sys.executable, "-P", str(Path(__file__).with_name("proxy.py"))),
                own=clocks.environments(),
                database_folder=self._disk.folder,
            ),
            self._say,
        )

    async def __aexit__(self, *_error: object) -> None:
        self.connections.close()
        await self.platform.stop()
        self._disk.unmount()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """PostgreSQL, directly."""
        return self.platform.postgres_direct()

    async def _fill(self) -> None:
        """Sign customers up and open their accounts."""
        gate = asyncio.Semaphore(_AT_ONE_TIME)

        async def customer(number: int) -> list[OwnAccount]:
            async with gate:
                owner = await sign_up(self.connections, f"model-{number}")
            accounts = []
            for index in range(_ACCOUNTS_OF_A_CUSTOMER):
                async with gate:
                    key = f"open {number} {index}"
                    accounts.append(await open_account(self.connections, owner, key))
            return accounts

        count = -(-self._wanted // _ACCOUNTS_OF_A_CUSTOMER)
        for accounts in await asyncio.gather(*(customer(it) for it in range(count))):
            self.accounts += accounts
        self._say(f"{len(self.accounts)} accounts of {count} customers")


def _forget_orphans() -> None:
    """Remove what is left of stages whose process was killed."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNER}"):
        if not Path("/proc", mark.read_text()).exists():
            SmallDisk(mark.parent / _DATABASES, 0).unmount()
            shutil.rmtree(mark.parent, ignore_errors=True)
