"""A shard's backup by pg_basebackup, and a lost shard with an old backup in its place."""

import asyncio
import shutil
import signal
from pathlib import Path

from microfin_local.credentials import OWNER, SUPERUSER
from microfin_local.database_home import DatabaseHome, choose_home
from microfin_local.platform import Platform
from microfin_local.postgres import PostgresShard
from microfin_local.programs import find_postgresql
from microfin_local.supervised import Program, run_to_end
from microfin_local.wait import wait_until

_OWNER_ONLY = f"host all {OWNER},{SUPERUSER} 127.0.0.1/32 scram-sha-256\n"


def _shard(platform: Platform, shard: int) -> PostgresShard:
    return platform._started_services().postgres[shard]


def _home(platform: Platform) -> DatabaseHome:
    return choose_home(platform.configuration.state)


async def back_up(platform: Platform, shard: int, name: str) -> Path:
    """Make a base backup of a running shard; its transactions continue."""
    home = _home(platform)
    folder = home.make_folder(name)
    password_file = home.folder / f"{name}.pgpass"
    password = _shard(platform, shard).credentials.passwords[SUPERUSER]
    home.write(password_file, f"*:*:*:*:{password}")
    program = Program(
        name="pg_basebackup",
        arguments=(
            str(find_postgresql() / "pg_basebackup"),
            *("--pgdata", str(folder), "--checkpoint=fast", "--wal-method=stream"),
            *("--host=127.0.0.1", f"--port={_shard(platform, shard).port}"),
            *(f"--username={SUPERUSER}", "--no-password"),
        ),
        directory=folder,
        environment={"PGPASSFILE": str(password_file)},
        user=home.user,
    )
    log = platform.configuration.logs / f"{name}.log"
    assert await run_to_end(program, log) == 0, log.read_text()
    return folder


async def lose_and_restore(
    platform: Platform, shard: int, backup: Path, *, locked: bool = False
) -> None:
    """Lose a shard with all its files, and start it again from an old backup (which stays).

    `locked`: nobody but the owner and the superuser gets in, until `unlock`.
    """
    lost = _shard(platform, shard)
    process = platform.process(lost.name)
    await process.stop()
    await asyncio.to_thread(_replace, lost.data, backup, _home(platform))
    if locked:
        _home(platform).write(lost.data / "pg_hba.conf", _OWNER_ONLY)
    await process.start()
    await wait_until(lost.answers, [process], lost.name)


def unlock(platform: Platform, shard: int, backup: Path) -> None:
    """Let everybody in again whom the backup let in."""
    opened = _shard(platform, shard)
    hosts = (backup / "pg_hba.conf").read_text()
    _home(platform).write(opened.data / "pg_hba.conf", hosts)
    platform.process(opened.name).signal(signal.SIGHUP)


def _replace(data: Path, backup: Path, home: DatabaseHome) -> None:
    shutil.rmtree(data)
    shutil.copytree(backup, data, symlinks=True)
    for path in (data, *data.rglob("*")):
        home.own(path)
    data.chmod(0o700)
