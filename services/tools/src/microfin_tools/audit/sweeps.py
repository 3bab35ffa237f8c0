"""Sweeps: queries of a full audit that show whether several checks would find anything.

A check is exact and says what it found, but alone it joins the largest tables once more. A sweep
reads them once and counts what is suspicious. Where it counts nothing, its checks would find
nothing, and do not run. Where it counts anything, they run and say what it is; so a sweep may be
stricter than its checks, but never less strict.
"""

from decimal import Decimal
from typing import Final

from microfin.ledger.money import EXPONENTS
from microfin_tools.audit.checks import (
    ACCOUNT_OF_EFFECT,
    CHAIN,
    CONTRA,
    EFFECTS,
    LAST_ENTRY,
    NEVER_NEGATIVE,
    OPENED,
    OUTCOME_SHAPE,
    SHAPE,
    SUM_OF_ENTRIES,
)
from microfin_tools.audit.scope import ASKED_ON_HOLD

SWEPT: Final = (
    CONTRA,
    SUM_OF_ENTRIES,
    NEVER_NEGATIVE,
    CHAIN,
    LAST_ENTRY,
    EFFECTS,
    OUTCOME_SHAPE,
    ACCOUNT_OF_EFFECT,
    OPENED,
)
"""The checks that find nothing if no sweep counts anything, the contra balances mirror the tally of
outcomes, and there are as many entries as the outcomes imply: then every entry has an effect of its
own, so that no effect is left without.

`LAST_ENTRY` needs two sweeps. The entries of an account are 1 to its `seq`, each follows the one
before, and their sum is the balance: so it is the balance after the last. Times never go back: so
the latest is that of the last. `CONTRA` needs two as well: entries have the amounts of outcomes,
which have the currencies of accounts."""

# Beyond these amounts a sum may exceed 64 bits, and would be an error of the query.
_SAFE: Final = "BETWEEN -4000000000000000000 AND 4000000000000000000"

CHAINED: Final = f"""
SELECT count(*) AS suspicious FROM entries e
LEFT JOIN known_entries before ON before.account = e.account AND before.seq = e.seq - 1
LEFT JOIN effects x ON x.account = e.account AND x.seq = e.seq
WHERE (
    CASE WHEN e.balance_after >= 0 AND e.balance_after {_SAFE} AND e.amount {_SAFE}
        THEN e.balance_after - e.amount = coalesce(before.balance_after, 0) END
    AND (before.account IS NOT NULL) = (e.seq > 1)
    AND coalesce(e.at >= before.at, true)
    AND e.operation_id = x.operation_id AND e.leg = x.leg AND e.kind = x.kind
    AND e.amount = x.amount AND e.contra = x.contra AND e.counterparty = x.counterparty
    AND e.reference IS NOT DISTINCT FROM x.reference
    AND e.partition = x.partition AND e.balance_after = coalesce(x.balance_after, e.balance_after)
    AND (e.at = x.at OR (e.at > x.at AND e.at = coalesce(before.at,
        (SELECT opened_at FROM accounts WHERE number = e.account))))
) IS NOT TRUE
"""  # noqa: S608 - all parts are ours

SUMMED: Final = """
SELECT count(*) FILTER (WHERE (
        a.balance >= 0 AND a.held BETWEEN 0 AND a.balance AND a.balance = coalesce(own.total, 0)
        AND a.seq = coalesce(own.entries, 0) AND a.seq = coalesce(own.last_seq, 0)
        AND a.entry_time = coalesce(own.last_at, a.opened_at)
    ) IS NOT TRUE) AS suspicious,
    count(*) FILTER (WHERE a.version - 1 - a.seq <> 0) AS changed_otherwise,
    count(*) FILTER (WHERE a.held <> 0) AS with_holds,
    count(a.number) AS accounts, coalesce(sum(own.entries), 0)::bigint AS entries
FROM accounts a FULL JOIN (
    SELECT account, sum(amount) AS total, count(*) AS entries, max(seq) AS last_seq,
        max(at) AS last_at
    FROM entries GROUP BY account
) AS own ON own.account = a.number
"""

SUMMED_AFTER_ARCHIVE: Final = """
SELECT count(*) FILTER (WHERE (
        a.balance >= 0 AND a.held BETWEEN 0 AND a.balance AND a.balance = coalesce(own.total, 0)
        AND a.seq = coalesce(own.entries, 0) AND a.seq = coalesce(own.last_seq, 0)
        AND a.entry_time = coalesce(own.last_at, a.opened_at)
    ) IS NOT TRUE) AS suspicious,
    count(*) FILTER (WHERE a.version - 1 - a.seq <> 0) AS changed_otherwise,
    count(*) FILTER (WHERE a.held <> 0) AS with_holds,
    count(a.number) AS accounts,
    (coalesce(sum(own.entries), 0) - (SELECT coalesce(sum(seq), 0) FROM archived_accounts))::bigint
        AS entries
FROM accounts a FULL JOIN (
    SELECT account, sum(amount) AS total, sum(lines) AS entries, max(seq) AS last_seq,
        max(at) AS last_at
    FROM (
        SELECT account, amount, 1 AS lines, seq, at FROM entries
        UNION ALL
        SELECT number, balance, seq, seq, entry_time FROM archived_accounts
    ) AS lines GROUP BY account
) AS own ON own.account = a.number
"""
"""`SUMMED` where old volumes are in the archive: what it left of an account counts as its entries
until then."""


def _minor_unit() -> str:
    """Return SQL for the value of one minor unit of an outcome's currency."""
    by_exponent: dict[int, list[str]] = {}
    for currency, exponent in EXPONENTS.items():
        by_exponent.setdefault(exponent, []).append(f"'{currency}'")
    cases = (
        f"WHEN o.currency IN ({', '.join(currencies)}) THEN {Decimal(1).scaleb(-exponent)}"
        for exponent, currencies in sorted(by_exponent.items(), key=lambda it: -len(it[1]))
    )
    return f"CASE {' '.join(cases)} END"


FIELDS_END: Final = b"\x01"
"""Separates the fields of a body instead of U+0000, which no text of PostgreSQL holds. A column
that has this character makes a body of too many fields, which has another hash."""

_BODY: Final = " || E'\\x01' || ".join(
    (
        "o.kind",
        "o.leg",
        "coalesce(encode(uuid_send(o.user_id), 'hex'), '')",
        "CASE o.kind WHEN 'open' THEN '' ELSE o.account END",
        "o.counterparty",
        f"CASE WHEN o.amount IS NULL THEN '' ELSE trim_scale(o.amount * {_minor_unit()})::text END",
        "CASE WHEN o.kind = 'open' OR o.leg <> 'request' THEN o.currency ELSE '' END",
        "''",
    )
)
"""`microfin.ledger.wire.body_hash` says what is hashed. An amount of an unknown currency makes it
null."""

_NOTES: Final = """CASE
    WHEN o.reference IS NOT NULL OR o.metadata IS NOT NULL OR o.kind = 'capture' THEN
    E'\\x01' || coalesce(o.reference, '') || E'\\x01' || coalesce((
        SELECT string_agg(key || E'\\x02' || value, E'\\x03' ORDER BY key COLLATE "C")
        FROM jsonb_each_text(o.metadata)), '')
ELSE '' END || CASE WHEN o.kind = 'capture' THEN E'\\x01\\x010\\x01' ELSE '' END"""
"""The end of a body that has a reference or metadata (`microfin.ledger.notes.canonical`), or is a
leg of a capture between partitions."""

_KNOWN: Final = f"o.currency IN ({', '.join(repr(it) for it in EXPONENTS)})"

_FITS: Final = f"""(CASE
    WHEN o.kind = 'open'
        THEN {_KNOWN} AND (o.status <> 'settled'
            OR (a.owner, a.currency, a.opened_at) = (o.user_id, o.currency, o.at))
    WHEN o.kind IN ('deposit', 'withdraw', 'transfer', 'hold', 'capture', 'release')
        THEN a.currency = o.currency AND (o.leg = 'credit' OR o.user_id = a.owner)
            AND (o.counterparty_seq IS NULL OR b.currency = o.currency)
    WHEN o.kind = 'expire' THEN a.currency = o.currency AND o.user_id IS NULL
    ELSE true
END)"""

BODIES: Final = f"""
SELECT encode(o.body_hash, 'hex') || CASE
    WHEN {SHAPE} AND {_FITS} AND octet_length(o.body_hash) = 16 THEN {_BODY} || {_NOTES} END
FROM outcomes o
LEFT JOIN accounts a ON a.number = o.account
LEFT JOIN accounts b ON b.number = CASE WHEN o.counterparty_seq IS NOT NULL THEN o.counterparty END
WHERE CASE WHEN o.status = 'rejected' OR o.kind = 'set_state' THEN NOT {SHAPE}
    WHEN {ASKED_ON_HOLD} THEN NOT ({SHAPE} AND {_FITS}) ELSE true END
"""  # noqa: S608 - all parts are ours
"""Each row is the hash of an outcome in hexadecimal and the body that its columns imply; null if
the outcome does not fit its account. Of a settled set_state, of what was rejected, and of what was
asked on holds, only those that no decision can have: their columns do not hold the whole body, or
it can be one of several."""
