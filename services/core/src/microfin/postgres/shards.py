"""Which shard a database is. Each database knows, and each new connection compares first.

MICROFIN_DATABASES lists the shards in an order that never changes. If a URL were at another's
place, missing, or listed twice, workers would decide commands again and people would sign up in a
database where nobody looks for them.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec

SHARD: Final = "SELECT shard, shards FROM routing"
"""The query that asks a database which shard it is; for `ShardPlace.check`."""


class WrongShard(Exception):
    """A database is not the shard that its place in the list of URLs says."""


class NotMigrated(LookupError):
    """A database holds no ledger yet."""


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

    def not_migrated(self) -> NotMigrated:
        """Return the error of a database at this place that holds no ledger yet."""
        return NotMigrated(
            f"The database at place {self.number} of {self.count} is no microfin ledger yet: run "
            "`microfin migrate` first."
        )
