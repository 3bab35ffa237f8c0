"""Which shard a database is, and which schema it has. Each new connection compares first.

MICROFIN_DATABASES lists the shards in an order that never changes. If a URL were at another's
place, missing, or listed twice, workers would decide commands again and people would sign up in a
database where nobody looks for them. With an older schema than a process needs, some of its
statements would fail, after others have had their effect.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec

SHARD: Final = "SELECT shard, shards FROM routing"
"""The query that asks a database which shard it is; for `ShardPlace.check`."""

SHARD_AND_SCHEMA: Final = (
    "SELECT shard, shards, (SELECT version_num FROM alembic_version) FROM routing"
)
"""The same, and which schema it has; for `ShardPlace.check_for_work`."""

NEEDED_SCHEMA: Final = "0013"
"""The oldest schema with which processes of this release work. They also work with all that come
later: `microfin migrate` of the next release runs while they do."""


class WrongShard(Exception):
    """A database is not the shard that its place in the list of URLs says."""


class NotMigrated(LookupError):
    """A database holds no ledger yet."""


class SchemaTooOld(NotMigrated):
    """A database has an older schema than processes of this release need."""


class ShardPlace(msgspec.Struct, frozen=True):
    """A place in the list of the shards' URLs: `number` of `count`, counted from 0."""

    number: int
    count: int

    def check(self, row: Sequence[Any] | None) -> Self:
        """Return this place if `row`, the result of `SHARD`, is of the shard that belongs here.

        Raises `WrongShard` if it is of another shard, `NotMigrated` if it is None.
        """
        if row is None:
            raise self.not_migrated()
        shard, shards = row[0], row[1]
        if (shard, shards) != (self.number, self.count):
            raise WrongShard(
                f"The database at place {self.number} of {self.count} is shard {shard} of {shards}:"
                " MICROFIN_DATABASES, and MICROFIN_DATABASES_DIRECT where it is set, must list the"
                " URLs of all shards, each once, in the same order as ever."
            )
        return self

    def check_for_work(self, row: Sequence[Any] | None) -> Self:
        """Return this place if `row`, the result of `SHARD_AND_SCHEMA`, fits it and this release.

        Raises as `check`, and `SchemaTooOld` if `microfin migrate` of this release did not run.
        """
        self.check(row)
        schema = "" if row is None or row[2] is None else str(row[2])
        # Revisions are numbers with leading zeros, so they sort as text.
        if schema < NEEDED_SCHEMA:
            raise self.too_old(f"has schema {schema or 'none'}")
        return self

    def too_old(self, what: str) -> SchemaTooOld:
        """Return the error of a database at this place whose schema is too old."""
        return SchemaTooOld(
            f"The database at place {self.number} of {self.count} {what}; this release needs "
            f"{NEEDED_SCHEMA} or later: run `microfin migrate` of this release first."
        )

    def not_migrated(self) -> NotMigrated:
        """Return the error of a database at this place that holds no ledger yet."""
        return NotMigrated(
            f"The database at place {self.number} of {self.count} is no microfin ledger yet: run "
            "`microfin migrate` first. If it is an archive, name it in MICROFIN_ARCHIVES, not here."
        )
