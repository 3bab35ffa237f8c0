"""The scope of an audit of one shard: everything, or what came after the last audit.

Both scopes define the same names (`audited_outcomes`, `effects`, …) in a `WITH` clause, so that
every check is written once.
"""

from typing import Any, Final

import msgspec

_EFFECTS: Final = """
    SELECT operation_id, leg, kind, account, seq,
        CASE WHEN kind = 'deposit' OR leg <> 'request' THEN amount ELSE -amount END AS amount,
        balance AS balance_after,
        CASE WHEN kind = 'transfer' OR (kind = 'capture' AND counterparty <> '')
            THEN 'in_transit' ELSE 'cash' END AS contra,
        counterparty, currency, partition, log_offset, at,
        leg <> 'credit' AS by_owner, user_id, reference
    FROM audited_outcomes
    WHERE status <> 'rejected' AND kind IN ('deposit', 'withdraw', 'transfer', 'capture')
    UNION ALL
    SELECT operation_id, leg, kind, counterparty, counterparty_seq, amount, NULL, 'in_transit',
        account, currency, partition, log_offset, at, false, NULL, reference
    FROM audited_outcomes
    WHERE status = 'settled' AND leg = 'request'
        AND (kind = 'transfer' OR (kind = 'capture' AND counterparty <> ''))
"""
"""The entries that the outcomes imply: one each, and two for a transfer in one decision. A capture
is a withdrawal or a transfer."""

ASKED_ON_HOLD: Final = "(o.kind IN ('hold', 'capture', 'release', 'expire') AND o.leg = 'request')"
"""SQL: whether the outcome `o` is of an operation on a hold."""

_BETWEEN_PARTITIONS: Final = "(leg <> 'request' OR status = 'debited')"

_LIVE: Final = """
known_entries AS NOT MATERIALIZED (SELECT * FROM entries),
openings AS NOT MATERIALIZED (
    SELECT * FROM outcomes WHERE kind = 'open' AND status = 'settled'
)
"""
"""What the whole ledger knows: its entries, and the outcomes that opened its accounts."""

# The account as the archive left it is like an entry that the first one here follows.
_AFTER_ARCHIVE: Final = """
known_entries AS NOT MATERIALIZED (
    SELECT account, seq, balance_after, at FROM entries
    UNION ALL
    SELECT number, seq, balance, entry_time FROM archived_accounts WHERE seq > 0
), openings AS NOT MATERIALIZED (
    SELECT operation_id, account, user_id, currency, at FROM outcomes
    WHERE kind = 'open' AND status = 'settled'
    UNION ALL
    SELECT NULL, number, owner, currency, opened_at FROM archived_accounts
)
"""
"""The same where old volumes are in the archive."""

_EVERYTHING: Final = f"""
WITH audited_outcomes AS NOT MATERIALIZED (SELECT * FROM outcomes),
effects AS NOT MATERIALIZED ({_EFFECTS}),
audited_entries AS NOT MATERIALIZED (SELECT * FROM entries),
audited_accounts AS NOT MATERIALIZED (SELECT * FROM accounts),
moving_legs AS NOT MATERIALIZED (SELECT * FROM outcomes WHERE {_BETWEEN_PARTITIONS}),
"""  # noqa: S608 - all parts are ours

# Outcomes have offsets of the log, entries have not. The entries of the window are those of the
# accounts that its outcomes touch, beginning with the first entry that an outcome names.
_WINDOW: Final = f"""
WITH audited_outcomes AS MATERIALIZED (
    SELECT outcomes.* FROM unnest($1::integer[], $2::bigint[]) AS mark (partition, next_offset)
    JOIN outcomes ON outcomes.partition = mark.partition
        AND outcomes.log_offset >= mark.next_offset
), effects AS MATERIALIZED ({_EFFECTS}), touched AS MATERIALIZED (
    SELECT number, min(first_seq) AS first_seq FROM (
        SELECT account AS number, seq AS first_seq FROM effects
        UNION ALL
        SELECT account, NULL FROM audited_outcomes WHERE status <> 'rejected'
    ) AS named GROUP BY number
), audited_entries AS NOT MATERIALIZED (
    SELECT entries.* FROM touched
    JOIN entries ON entries.account = touched.number AND entries.seq >= touched.first_seq
), audited_accounts AS NOT MATERIALIZED (
    SELECT accounts.* FROM touched JOIN accounts USING (number)
), moving_legs AS NOT MATERIALIZED (
    SELECT outcomes.* FROM (
        SELECT DISTINCT operation_id FROM audited_outcomes WHERE {_BETWEEN_PARTITIONS}
    ) AS moving JOIN outcomes USING (operation_id) WHERE {_BETWEEN_PARTITIONS}
),
"""  # noqa: S608 - all parts are ours


class Scope(msgspec.Struct, frozen=True):
    """A `WITH` clause and its arguments. The numbers of a query's own arguments follow them."""

    clause: str
    arguments: list[Any]
    full: bool


EVERYTHING: Final = Scope(_EVERYTHING + _LIVE, [], full=True)

_EVERYTHING_AFTER_ARCHIVE: Final = Scope(_EVERYTHING + _AFTER_ARCHIVE, [], full=True)


def everything(*, archived: bool) -> Scope:
    """Return the scope of all rows; `archived`: of a ledger whose old volumes are elsewhere."""
    return _EVERYTHING_AFTER_ARCHIVE if archived else EVERYTHING


def window(next_offsets: dict[int, int], *, archived: bool) -> Scope:
    """Return the scope of the outcomes at and after `next_offsets` (by partition)."""
    clause = _WINDOW + (_AFTER_ARCHIVE if archived else _LIVE)
    return Scope(clause, [list(next_offsets), list(next_offsets.values())], full=False)
