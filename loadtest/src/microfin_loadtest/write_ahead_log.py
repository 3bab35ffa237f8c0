"""What the shards' PostgreSQL wrote to its write-ahead log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from microfin.postgres.connections import connect

# Another process's count of pages comes up to a second late; the place in the log is exact.
_WRITTEN: Final = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes, wal_fpi FROM pg_stat_wal
"""


@dataclass(frozen=True)
class Written:
    """Bytes, and the full images of pages among them: each page's first after a checkpoint."""

    bytes: int
    full_pages: int

    def since(self, before: "Written") -> "Written":
        """Return what was written after `before`."""
        return Written(self.bytes - before.bytes, self.full_pages - before.full_pages)


async def written(urls: Sequence[str]) -> Written:
    """Return what all shards have written so far."""
    bytes_, full_pages = 0, 0
    for url in urls:
        connection = await connect(url)
        try:
            row = await connection.fetchrow(_WRITTEN)
        finally:
            await connection.close()
        bytes_ += int(row["bytes"])
        full_pages += row["wal_fpi"]
    return Written(bytes_, full_pages)


def wal_figures(more: Written, settled: int) -> dict[str, Any]:
    """Return a load report's section about the log."""
    return {
        "bytes": more.bytes,
        "full_pages": more.full_pages,
        "bytes_per_settled": round(more.bytes / settled) if settled else None,
        "full_pages_per_settled": round(more.full_pages / settled, 4) if settled else None,
    }
