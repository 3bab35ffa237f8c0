"""A local platform's PostgreSQL, as its superuser: memory, checkpoints, and the tables' size."""

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from microfin.postgres.connections import connect
from microfin_local.credentials import SUPERUSER, load_or_make
from microfin_local.endpoints import Endpoints

_MEBIBYTE: Final = 2**20
_LEAST_MEBIBYTES: Final = 16
_SIZE: Final = """
SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND (nspname = 'public' OR nspname LIKE 'volume%')
"""


class Server:
    """The server of the platform's first shard."""

    def __init__(self, state: Path, endpoints: Endpoints) -> None:
        owner = urlsplit(endpoints.postgres)
        password = load_or_make(state / "secrets.json").passwords[SUPERUSER]
        place = f"{SUPERUSER}:{password}@{owner.hostname}:{owner.port}"
        self._url = urlunsplit(owner._replace(netloc=place))

    def table_bytes(self) -> int:
        """Return the size of all tables with their indexes."""
        size: int = asyncio.run(_call(self._url, _SIZE))
        return size

    def checkpoint(self) -> None:
        """Write all pages; the first change of each page after this costs its full image."""
        asyncio.run(_call(self._url, "CHECKPOINT"))

    def keep_in_memory(self, share: float) -> int:
        """Let the server keep this share of its tables in its own memory, at least 16 MiB, from its
        next start on; return the mebibytes."""
        mebibytes = max(round(self.table_bytes() * share / _MEBIBYTE), _LEAST_MEBIBYTES)
        asyncio.run(_call(self._url, f"ALTER SYSTEM SET shared_buffers = '{mebibytes}MB'"))
        return mebibytes


async def _call(url: str, statement: str) -> Any:
    connection = await connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
