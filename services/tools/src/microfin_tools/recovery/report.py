"""What a recovery reports: places in the log, and what cannot be recovered, by operation."""

import msgspec

from microfin_tools.audit import AuditReport


class PartitionPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of the restored shard and its log, which keeps offsets `start` to `end`.

    `claimed` tells whether the restored database knows the partition; where not, `next_offset` is
    0. `replays` records are decided again; `lost` ones were decided by the lost database, are
    missing in the restored one, and are gone from the log.
    """

    partition: int
    claimed: bool
    next_offset: int
    start: int
    end: int
    replays: int
    lost: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer whose legs do not add up, with what is known of it.

    `amount` is a decimal of `currency`; `time` (milliseconds since the Unix epoch) is that of a leg
    that is known.
    """

    operation: str
    what: str
    sender: str
    receiver: str
    amount: str | None
    currency: str
    time: int


class LostUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person who has accounts and no user row any more."""

    user: str
    accounts: list[str]


class CheckReport(msgspec.Struct, kw_only=True):
    """What a recovery of `shard` would do. `ok`: it can be prepared, and nothing is lost by it.

    `refusals` forbid it, `losses` ask for `--accept-loss`, `notes` are only to be known.
    `transfers` are those of which a leg is missing that the log does not hold any more.
    """

    ok: bool
    shard: int
    generation: int
    partition_count: int
    partitions: list[PartitionPlace]
    refusals: list[str]
    losses: list[str]
    notes: list[str]
    transfers: list[Transfer]
    users: list[LostUser]


class VerifyReport(msgspec.Struct, kw_only=True):
    """What is so after the replay. `ok`: everything is there, and the audit found nothing.

    `owed` are transfers whose next command is gone and can be sent again, `sent` those for which
    this was done now, `contradictory` those that nothing can complete.
    """

    ok: bool
    shard: int
    owed: list[Transfer]
    sent: list[Transfer]
    contradictory: list[Transfer]
    users: list[LostUser]
    audit: AuditReport
