"""Whose archive a database is. Each new connection to an archive compares first.

An archive is a database of the ledger's schema that holds the old volumes of one shard
(docs/adr/0045-archive.md). It has no row in `routing`, so nobody takes it for a shard. In another
shard's archive, statements would go on with another shard's rows.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec

from microfin.postgres.shards import NEEDED_SCHEMA

ARCHIVE: Final = (
    "SELECT shard, shards, shard_id::text, (SELECT version_num FROM alembic_version) FROM archive"
)
"""The query that asks a database whose archive it is; for `ArchivePlace.check`."""

IDENTITY: Final = "SELECT id::text FROM shard_identity"
"""The query that asks a shard for its identity, which its archive names."""


class WrongArchive(Exception):
    """A database is not the archive that its place in the list of URLs says."""


class ArchivePlace(msgspec.Struct, frozen=True):
    """The archive of shard `number` of `count`, whose identity is `shard_id` (from `IDENTITY`)."""

    number: int
    count: int
    shard_id: str

    def check(self, row: Sequence[Any] | None) -> Self:
        """Return this place if `row`, the result of `ARCHIVE`, is of the archive that belongs here.

        Raises `WrongArchive` where it is of another, or of one with another schema than this
        release needs.
        """
        if row is None:
            raise self.not_prepared()
        self.check_owner(row)
        if str(row[3] or "") < NEEDED_SCHEMA:
            raise WrongArchive(
                f"{self._where} has schema {row[3] or 'none'}; this release needs {NEEDED_SCHEMA} "
                "or later: run `microfin migrate --archives` of this release first."
            )
        return self

    def check_owner(self, row: Sequence[Any]) -> None:
        """Raise `WrongArchive` if `row`, the result of `ARCHIVE`, is of another shard."""
        if (row[0], row[1]) != (self.number, self.count):
            raise WrongArchive(
                f"{self._where} is the archive of shard {row[0]} of {row[1]}: MICROFIN_ARCHIVES, "
                "and MICROFIN_ARCHIVES_DIRECT where it is set, must list the URLs of all archives, "
                "each once, in the order of the shards."
            )
        if str(row[2]) != self.shard_id:
            raise WrongArchive(
                f"{self._where} is the archive of a shard of another ledger: correct "
                "MICROFIN_ARCHIVES and MICROFIN_ARCHIVES_DIRECT."
            )

    def not_prepared(self) -> WrongArchive:
        """Return the error of a database that is no archive."""
        return WrongArchive(
            f"{self._where} is no archive: run `microfin migrate --archives` first."
        )

    @property
    def _where(self) -> str:
        return f"The database at place {self.number} of {self.count} in MICROFIN_ARCHIVES"
