"""The reports of a recovery: places in the log, and the operations that cannot be recovered."""

import msgspec

from microfin_tools.audit import AuditReport


class PartitionPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of the restored shard and its log, which keeps offsets `start` to `end`.

    `claimed` says whether the restored database knows the partition; if not, `next_offset` is 0.
    `replays` is the number of records that are decided again. `lost` is the number of records that
    the lost database had decided, and that neither the restored one nor the log has.
    """

    partition: int
    claimed: bool
    next_offset: int
    start: int
    end: int
    replays: int
    lost: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer whose legs do not add up, and its known fields.

    `amount` is a decimal of `currency`; `time` (milliseconds since the Unix epoch) is that of a
    known leg.
    """

    operation: str
    what: str
    sender: str
    receiver: str
    amount: str | None
    currency: str
    time: int


class LostUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person who has accounts but no user row any more."""

    user: str
    accounts: list[str]


class CheckReport(msgspec.Struct, kw_only=True):
    """What a recovery of `shard` would do. `ok`: it can be prepared, and nothing is lost.

    `refusals` forbid it, `losses` need `--accept-loss`, `notes` are only information. `transfers`
    are those with a missing leg that the log does not hold any more.
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
    """The state after the replay. `ok`: everything is there, and the audit found nothing.

    `owed` are transfers whose next command is lost and can be sent again, `sent` those whose
    command was sent again now, `contradictory` those that nothing can complete.
    """

    ok: bool
    shard: int
    owed: list[Transfer]
    sent: list[Transfer]
    contradictory: list[Transfer]
    users: list[LostUser]
    audit: AuditReport
