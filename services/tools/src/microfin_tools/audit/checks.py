"""The checks of one shard: queries that return only what violates an invariant.

Each query has the columns `what` (a sentence) and `rows` (the rows that show it, as JSON), and
follows the `WITH` clause of a scope.
"""

from typing import Final

import msgspec

from microfin_tools.audit.legs import FORGOTTEN_AFTER_DAYS


class Check(msgspec.Struct, frozen=True):
    """One check. `title` is for the progress display, `invariant` is the number of an invariant."""

    title: str
    invariant: int
    query: str


NEVER_NEGATIVE: Final = Check(
    "no balance is negative",
    2,
    """
SELECT 'the balance is negative' AS what, jsonb_build_array(to_jsonb(a)) AS rows
FROM audited_accounts a WHERE a.balance < 0
UNION ALL
SELECT 'the balance after this entry is negative', jsonb_build_array(to_jsonb(e))
FROM audited_entries e WHERE e.balance_after < 0
""",
)

CHAIN: Final = Check(
    "every entry follows the one before",
    3,
    """
SELECT CASE
        WHEN e.seq > 1 AND before.account IS NULL THEN 'a gap: the entry before this one is missing'
        WHEN e.at < before.at THEN 'this entry is older than the one before it'
        ELSE 'balance_after is not that of the entry before plus the amount'
    END AS what,
    jsonb_build_array(to_jsonb(before), to_jsonb(e)) AS rows
FROM audited_entries e
LEFT JOIN known_entries before ON before.account = e.account AND before.seq = e.seq - 1
WHERE (e.seq > 1 AND before.account IS NULL) OR e.at < before.at
    OR e.balance_after <> coalesce(before.balance_after, 0)::numeric + e.amount
""",
)

LAST_ENTRY: Final = Check(
    "every account is as its last entry left it",
    3,
    """
SELECT CASE
        WHEN next.account IS NOT NULL THEN 'there are entries beyond the seq of the account'
        WHEN a.seq > 0 AND last.account IS NULL THEN 'the entry that seq names is missing'
        WHEN a.balance <> coalesce(last.balance_after, 0)
            THEN 'the balance is not that after the last entry'
        ELSE 'entry_time is not the time of the last entry, or of the opening'
    END AS what,
    jsonb_build_array(to_jsonb(a), to_jsonb(last), to_jsonb(next)) AS rows
FROM audited_accounts a
LEFT JOIN known_entries last ON last.account = a.number AND last.seq = a.seq
LEFT JOIN entries next ON next.account = a.number AND next.seq = a.seq + 1
WHERE next.account IS NOT NULL OR (a.seq > 0 AND last.account IS NULL)
    OR a.balance <> coalesce(last.balance_after, 0)
    OR a.entry_time <> coalesce(last.at, a.opened_at)
""",
)

SUM_OF_ENTRIES: Final = Check(
    "every balance is the sum of its entries",
    3,
    """
SELECT CASE
        WHEN a.number IS NULL THEN 'entries of an account that does not exist'
        WHEN a.balance <> coalesce(sums.total, 0) THEN 'the balance is not the sum of the entries'
        ELSE 'seq is not the number of entries'
    END AS what,
    jsonb_build_array(to_jsonb(a), jsonb_build_object(
        'account', sums.account, 'sum_of_entries', sums.total::text, 'entries', sums.entries,
        'last_seq', sums.last_seq)) AS rows
FROM accounts a
FULL JOIN (
    SELECT account, sum(amount) AS total, sum(lines) AS entries, max(seq) AS last_seq
    FROM (
        SELECT account, amount, 1 AS lines, seq FROM entries
        UNION ALL
        SELECT number, balance, seq, seq FROM archived_accounts WHERE seq > 0
    ) AS lines GROUP BY account
) AS sums ON sums.account = a.number
WHERE a.number IS NULL OR a.balance <> coalesce(sums.total, 0)
    OR a.seq <> coalesce(sums.entries, 0) OR a.seq <> coalesce(sums.last_seq, 0)
""",
)

_TWICE: Final = "one leg has two outcomes"

# A primary key makes sure of it only where it is in force, and only within its own table. The
# query reads nothing but that key's index, in its order, so that it needs no memory.
DECIDED_ONCE: Final = Check(
    "every leg is decided once",
    4,
    f"""
SELECT '{_TWICE}' AS what, (
    SELECT jsonb_agg(to_jsonb(o)) FROM outcomes o
    WHERE o.operation_id = twice.operation_id AND o.leg = twice.leg) AS rows
FROM (
    SELECT operation_id, leg FROM outcomes GROUP BY operation_id, leg HAVING count(*) > 1
) AS twice
""",  # noqa: S608 - the sentence is ours
)

ONCE_IN_ARCHIVE: Final = Check(
    "every leg is decided once",
    4,
    f"""
SELECT '{_TWICE}' AS what, (
    SELECT jsonb_agg(to_jsonb(o)) FROM outcomes o
    WHERE o.operation_id = twice.operation_id AND o.leg = twice.leg) AS rows
FROM (
    SELECT operation_id, leg FROM outcomes GROUP BY operation_id, leg HAVING count(*) > 1
) AS twice
WHERE EXISTS (
    SELECT FROM outcomes one JOIN outcomes other USING (operation_id, leg)
    WHERE one.operation_id = twice.operation_id AND one.leg = twice.leg
        AND (one.volume, one.ctid) <> (other.volume, other.ctid)
        AND abs(extract(epoch FROM one.at - other.at)) < {FORGOTTEN_AFTER_DAYS} * 86400
)
""",  # noqa: S608 - all parts are ours
)
"""The same in an archive: the ledger forgets keys that are there, and one that is used again makes
another operation of the same id."""

_DECIDED_ONCE_SINCE: Final = Check(
    "every leg is decided once",
    4,
    f"""
SELECT '{_TWICE}' AS what, jsonb_agg(to_jsonb(o)) AS rows
FROM (SELECT DISTINCT operation_id, leg FROM audited_outcomes) AS new
JOIN outcomes o USING (operation_id, leg)
GROUP BY operation_id, leg HAVING count(*) > 1
""",  # noqa: S608 - the sentence is ours
)

# Opening an account gives it version 1; each entry adds one, and so does each change of the state,
# or of what is held, without an entry. So the version also says how often there was such a change,
# even before a window.
CHANGES: Final = Check(
    "no account has changed more often than its version says",
    3,
    """
SELECT 'the version is behind the entries and other changes' AS what,
    jsonb_build_array(to_jsonb(a)) AS rows
FROM audited_accounts a
LEFT JOIN (
    SELECT account, count(*) AS times FROM audited_outcomes
    WHERE kind IN ('set_state', 'hold', 'release', 'expire') AND status = 'settled'
    GROUP BY account
) AS others ON others.account = a.number
LEFT JOIN archived_accounts past ON past.number = a.number
WHERE a.version - a.seq - coalesce(past.version - past.seq, 1) < coalesce(others.times, 0)
""",
)

VERSION: Final = Check(
    "every version is the number of changes",
    3,
    """
SELECT 'the version is not 1 for the opening and 1 for each entry and other change' AS what,
    jsonb_build_array(to_jsonb(a), jsonb_build_object('other_changes', others.times)) AS rows
FROM accounts a
LEFT JOIN (
    SELECT account, count(*) AS times FROM outcomes
    WHERE kind IN ('set_state', 'hold', 'release', 'expire') AND status = 'settled'
    GROUP BY account
) AS others ON others.account = a.number
LEFT JOIN archived_accounts past ON past.number = a.number
WHERE a.version - a.seq - coalesce(past.version - past.seq, 1) > coalesce(others.times, 0)
""",
)

_NEVER_SET: Final = Check(
    "every account is open until its state is set",
    4,
    """
SELECT 'the state is not open, and the version says that it was never set' AS what,
    jsonb_build_array(to_jsonb(a)) AS rows
FROM audited_accounts a WHERE a.state <> 'open' AND a.version - 1 - a.seq = 0
""",
)

_AS_ARCHIVED: Final = Check(
    "every account goes on from where the archive left it",
    4,
    """
SELECT CASE WHEN a.state <> past.state
        THEN 'the state is not the one of the archive, and was not set since'
        ELSE 'the account is not as the archive says that it was opened' END AS what,
    jsonb_build_array(to_jsonb(a), to_jsonb(past)) AS rows
FROM audited_accounts a JOIN archived_accounts past ON past.number = a.number
WHERE (a.state <> past.state AND a.version - a.seq = past.version - past.seq)
    OR (a.owner, a.currency, a.opened_at) <> (past.owner, past.currency, past.opened_at)
""",
)

SHAPE: Final = """
coalesce(CASE
    WHEN o.leg <> 'request' AND o.kind NOT IN ('transfer', 'capture') THEN false
    WHEN (o.hold IS NOT NULL)
            <> (o.kind IN ('capture', 'release', 'expire') AND o.leg = 'request')
        -- A record that could not be read completely names no hold.
        AND (o.hold IS NOT NULL OR o.reason <> 'quarantined') THEN false
    WHEN (o.ends_at IS NOT NULL) <> (o.kind = 'hold' AND o.status = 'settled') THEN false
    WHEN num_nonnulls(o.held_change, o.hold_left) <> CASE
            WHEN o.kind IN ('hold', 'capture', 'release', 'expire') AND o.leg = 'request'
                AND o.status <> 'rejected' THEN 2 ELSE 0 END THEN false
    WHEN o.held IS NOT NULL AND (o.held <= 0 OR o.held > coalesce(o.balance, o.held)) THEN false
    WHEN o.status = 'rejected'
        THEN o.leg <> 'refund' AND num_nonnulls(o.amount, o.seq, o.balance, o.counterparty_seq) = 0
            AND (o.held IS NULL OR o.reason = 'insufficient_funds')
            AND CASE o.reason
                WHEN 'hold_exceeded'
                    THEN o.kind = 'capture' AND o.available > 0
                        AND coalesce(o.needed > o.available, true)
                WHEN 'insufficient_funds'
                    THEN o.available >= 0 AND coalesce(o.needed > o.available, true)
                WHEN 'balance_not_zero' THEN o.available > 0 AND o.needed IS NULL
                ELSE num_nonnulls(o.needed, o.available) = 0
            END
    WHEN o.status = 'debited'
        THEN o.leg = 'request' AND num_nulls(o.amount, o.seq, o.balance) = 0
            AND o.counterparty_seq IS NULL
            AND (o.kind = 'transfer'
                OR (o.kind = 'capture' AND o.counterparty <> '' AND {captured}))
    WHEN o.kind IN ('open', 'set_state')
        THEN num_nulls(o.seq, o.balance) = 0 AND num_nonnulls(o.amount, o.counterparty_seq) = 0
    WHEN o.kind IN ('release', 'expire')
        THEN num_nulls(o.seq, o.balance) = 0 AND num_nonnulls(o.amount, o.counterparty_seq) = 0
            AND o.held_change < 0 AND o.hold_left = 0
    WHEN o.kind = 'hold'
        THEN num_nulls(o.seq, o.balance) = 0 AND o.counterparty_seq IS NULL
            AND o.held_change = o.amount AND o.hold_left = o.amount AND o.held >= o.amount
            AND o.ends_at > o.at
    ELSE num_nulls(o.amount, o.seq, o.balance) = 0
        AND (o.counterparty_seq IS NOT NULL) = (o.leg = 'request' AND (o.kind = 'transfer'
            OR (o.kind = 'capture' AND o.counterparty <> '')))
        AND (o.kind <> 'capture' OR o.leg <> 'request' OR {captured})
END, false)""".format(
    captured="o.hold_left >= 0 AND o.held_change <= -o.amount"
    " AND (o.hold_left = 0 OR o.held_change = -o.amount)"
)
"""SQL: whether a decision can have the outcome `o`."""

OUTCOME_SHAPE: Final = Check(
    "every outcome is one that a decision can have",
    4,
    f"""
SELECT 'no decision has such an outcome' AS what, jsonb_build_array(to_jsonb(o)) AS rows
FROM audited_outcomes o
WHERE NOT {SHAPE}
""",  # noqa: S608 - the condition is ours
)

EFFECTS: Final = Check(
    "every outcome has its entries, every entry its outcome",
    4,
    """
SELECT CASE
        WHEN e.account IS NULL THEN 'the entry that this outcome names is missing'
        WHEN x.account IS NULL THEN 'no outcome explains this entry'
        ELSE 'this entry is not what its outcome says'
    END AS what,
    jsonb_build_array(jsonb_build_object('outcome', to_jsonb(x), 'entry', to_jsonb(e))) AS rows
FROM effects x
FULL JOIN audited_entries e ON e.account = x.account AND e.seq = x.seq
WHERE e.account IS NULL OR x.account IS NULL
    OR (e.operation_id, e.leg, e.kind, e.amount, e.contra, e.counterparty, e.partition)
        IS DISTINCT FROM
        (x.operation_id, x.leg, x.kind, x.amount, x.contra, x.counterparty, x.partition)
    OR e.reference IS DISTINCT FROM x.reference
    OR e.balance_after <> x.balance_after OR e.at < x.at
    -- Only where the entry before is as late may this one be later than its outcome.
    OR (e.at > x.at AND e.at IS DISTINCT FROM coalesce(
        (SELECT at FROM known_entries WHERE account = e.account AND seq = e.seq - 1),
        (SELECT opened_at FROM accounts WHERE number = e.account)))
""",
)

# The balance that a rejection saw is the balance after one of the entries from the last one before
# it in its partition (`low`) to the one before the first entry after it there (`high`). Mostly both
# are the same entry. Only if the account was on another partition in between, nothing shows which
# of its entries there came before the rejection, and the balance of any of them is right.
REJECTIONS: Final = Check(
    "every rejection for a balance saw that balance",
    4,
    """
SELECT 'the account did not have this balance when the operation was rejected' AS what,
    jsonb_build_array(to_jsonb(o), jsonb_build_object('account', seen.account,
        'low_seq', seen.low, 'low_balance', low.balance_after, 'high_seq', seen.high,
        'high_balance', high.balance_after)) AS rows
FROM (
    SELECT placed.*, coalesce(before, first - 1, a.seq) AS low, coalesce(after - 1, a.seq) AS high
    FROM (
        SELECT account, rejected, available,
            min(seq) OVER (PARTITION BY account) AS first,
            max(seq) OVER (PARTITION BY account, partition ORDER BY log_offset
                ROWS UNBOUNDED PRECEDING) AS before,
            min(seq) OVER (PARTITION BY account, partition ORDER BY log_offset DESC
                ROWS UNBOUNDED PRECEDING) AS after
        FROM (
            SELECT account, partition, log_offset, seq, NULL AS rejected, NULL AS available
            FROM effects WHERE account IN (
                SELECT account FROM audited_outcomes
                WHERE status = 'rejected' AND available IS NOT NULL)
            UNION ALL
            SELECT account, partition, log_offset, NULL, operation_id,
                available + coalesce(held, 0)
            FROM audited_outcomes WHERE status = 'rejected' AND available IS NOT NULL
                AND reason <> 'hold_exceeded'
        ) AS decided
    ) AS placed
    JOIN accounts a ON a.number = placed.account
    WHERE rejected IS NOT NULL
) AS seen
LEFT JOIN known_entries low ON low.account = seen.account AND low.seq = seen.low
LEFT JOIN known_entries high ON high.account = seen.account AND high.seq = seen.high
JOIN outcomes o ON o.operation_id = seen.rejected AND o.leg = 'request'
WHERE seen.available IS DISTINCT FROM CASE seen.low WHEN 0 THEN 0 ELSE low.balance_after END
    AND seen.available IS DISTINCT FROM CASE seen.high WHEN 0 THEN 0 ELSE high.balance_after END
    AND (seen.low >= seen.high OR NOT EXISTS (
        SELECT FROM entries e WHERE e.account = seen.account
            AND e.seq BETWEEN seen.low AND seen.high AND e.balance_after = seen.available))
""",
)

ACCOUNT_OF_EFFECT: Final = Check(
    "every outcome fits its account",
    4,
    """
SELECT CASE
        WHEN a.number IS NULL THEN 'an effect on an account that does not exist'
        WHEN a.currency <> x.currency THEN 'the currency is not that of the account'
        ELSE 'the user is not the owner of the account'
    END AS what,
    jsonb_build_array(to_jsonb(x), to_jsonb(a)) AS rows
FROM effects x
LEFT JOIN accounts a ON a.number = x.account
WHERE a.number IS NULL OR a.currency <> x.currency
    OR (x.by_owner AND x.user_id IS DISTINCT FROM a.owner)
""",
)

OPENED: Final = Check(
    "every open made its account",
    4,
    """
SELECT CASE
        WHEN a.number IS NULL THEN 'the account that this outcome opened does not exist'
        ELSE 'the account is not as this outcome opened it'
    END AS what,
    jsonb_build_array(to_jsonb(o), to_jsonb(a)) AS rows
FROM audited_outcomes o
LEFT JOIN accounts a ON a.number = o.account
WHERE o.kind = 'open' AND o.status = 'settled'
    AND (a.number IS NULL
        OR (a.owner, a.currency, a.opened_at) IS DISTINCT FROM (o.user_id, o.currency, o.at))
""",
)

_OPENED_ONCE: Final = Check(
    "every account was opened once",
    4,
    """
SELECT CASE WHEN opened.times IS NULL THEN 'no outcome opened this account'
        ELSE 'more than one outcome opened this account' END AS what,
    jsonb_build_array(to_jsonb(a)) AS rows
FROM accounts a
LEFT JOIN (
    SELECT account, count(*) AS times FROM openings GROUP BY account
) AS opened ON opened.account = a.number
WHERE opened.times IS DISTINCT FROM 1
""",
)

_PLACE_IN_LOG: Final = Check(
    "every partition is past what it decided",
    4,
    """
SELECT CASE
        WHEN p.partition % r.shards <> r.shard THEN 'this partition belongs to another shard'
        ELSE 'the partition would decide again what it has decided'
    END AS what,
    jsonb_build_array(jsonb_build_object('partition', p.partition, 'next_offset', p.next_offset,
        'last_outcome', decided.log_offset)) AS rows
FROM partitions p CROSS JOIN routing r
CROSS JOIN LATERAL (
    SELECT greatest(
        (SELECT max(log_offset) FROM outcomes WHERE partition = p.partition),
        (SELECT last_offset FROM archived_partitions WHERE partition = p.partition)
    ) AS log_offset
) AS decided
WHERE decided.log_offset >= p.next_offset OR p.partition % r.shards <> r.shard
""",
)

# A growth changes the shard's routing and all of its partitions in one transaction, and a new
# partition's row copies the routing while it is locked.
_ROUTING: Final = Check(
    "every partition decides by its shard's routing",
    6,
    """
SELECT 'the partition decides by another routing than that of its shard' AS what,
    jsonb_build_array(to_jsonb(p), to_jsonb(r)) AS rows
FROM partitions p CROSS JOIN routing r
WHERE (p.generation, p.partition_count) IS DISTINCT FROM (r.generation, r.partition_count)
""",
)

KNOWN_PARTITION: Final = Check(
    "every outcome has its partition",
    4,
    """
SELECT 'outcomes of a partition that has no row' AS what,
    jsonb_build_array(jsonb_build_object('partition', decided.partition)) AS rows
FROM (
    SELECT DISTINCT partition FROM outcomes UNION SELECT partition FROM archived_partitions
) AS decided
LEFT JOIN partitions p USING (partition) WHERE p.partition IS NULL
""",
)

CONTRA: Final = Check(
    "contra balances mirror the entries",
    1,
    """
SELECT 'the contra balance is not minus the sum of its entries' AS what,
    jsonb_build_array(jsonb_build_object('partition', partition, 'contra', contra,
        'currency', currency, 'balance', c.balance::text,
        'sum_of_entries', sums.total::text)) AS rows
FROM contra_balances c
FULL JOIN (
    SELECT partition, contra, currency, sum(amount) AS total FROM (
        SELECT e.partition, e.contra, a.currency, e.amount
        FROM entries e JOIN accounts a ON a.number = e.account
        UNION ALL
        SELECT partition, contra, currency, -balance FROM archived_contra_balances
    ) AS moved GROUP BY partition, contra, currency
) AS sums USING (partition, contra, currency)
WHERE coalesce(c.balance, 0) + coalesce(sums.total, 0) <> 0
""",
)

_ZERO_SUM: Final = Check(
    "accounts and contra accounts add up to 0",
    1,
    """
SELECT 'accounts and contra accounts do not add up to 0' AS what,
    jsonb_build_array(jsonb_build_object('currency', currency,
        'accounts', sum(accounts)::text, 'contra', sum(contra)::text)) AS rows
FROM (
    SELECT currency, sum(balance) AS accounts, 0 AS contra FROM accounts GROUP BY currency
    UNION ALL
    SELECT currency, 0, sum(balance) FROM contra_balances GROUP BY currency
) AS sides
GROUP BY currency HAVING sum(accounts) + sum(contra) <> 0
""",
)

ACCOUNTS_IN_ROTATION: Final = 20_000
"""The number of accounts that each audit of a window checks as well as those of the window."""

OPENED_AS_THEY_ARE: Final = Check(
    "some accounts in turn are as they were opened",
    4,
    f"""
SELECT CASE WHEN o.account IS NULL THEN 'no outcome opened this account'
        ELSE 'the account is not as this outcome opened it' END AS what,
    jsonb_build_array(to_jsonb(o), to_jsonb(a)) AS rows
FROM (SELECT * FROM accounts WHERE number > $3 ORDER BY number LIMIT {ACCOUNTS_IN_ROTATION}) AS a
LEFT JOIN openings o ON o.account = a.number
WHERE (a.owner, a.currency, a.opened_at) IS DISTINCT FROM (o.user_id, o.currency, o.at)
""",  # noqa: S608 - the number is ours
)
"""For a window only; its argument is the last account that earlier audits have checked in rotation.

Somebody may have changed an account's owner without any outcome, so that no window shows it."""

LAST_IN_ROTATION: Final = f"""
SELECT max(number) FROM (
    SELECT number FROM accounts WHERE number > $1 ORDER BY number LIMIT {ACCOUNTS_IN_ROTATION}
) AS looked_at HAVING count(*) = {ACCOUNTS_IN_ROTATION}
"""  # noqa: S608 - the number is ours
"""The last account of this audit's rotation; no row if it has reached the last of all."""

CONTRA_CHANGE: Final = Check(
    "contra balances changed as the new entries",
    1,
    """
SELECT 'the contra balance did not change by minus the sum of the new entries' AS what,
    jsonb_build_array(jsonb_build_object('partition', partition, 'contra', contra,
        'currency', currency, 'balance', c.balance::text, 'audited_balance', was.balance::text,
        'sum_of_new_entries', sums.total::text)) AS rows
FROM contra_balances c
FULL JOIN (
    SELECT partition, contra, currency, balance::numeric AS balance
    FROM unnest($3::integer[], $4::text[], $5::text[], $6::text[])
    AS kept (partition, contra, currency, balance)
) AS was USING (partition, contra, currency)
FULL JOIN (
    SELECT partition, contra, currency, sum(amount) AS total FROM effects
    GROUP BY partition, contra, currency
) AS sums USING (partition, contra, currency)
WHERE coalesce(c.balance, 0) - coalesce(was.balance, 0) + coalesce(sums.total, 0) <> 0
""",
)
"""For a window only; its arguments are the contra balances of the last audit, as columns."""

_OF_EVERY_SCOPE: Final = (
    NEVER_NEGATIVE,
    CHAIN,
    LAST_ENTRY,
    CHANGES,
    _NEVER_SET,
    _AS_ARCHIVED,
    OUTCOME_SHAPE,
    EFFECTS,
    REJECTIONS,
    ACCOUNT_OF_EFFECT,
    OPENED,
    _PLACE_IN_LOG,
    _ROUTING,
)

FULL_CHECKS: Final = (
    _ZERO_SUM,
    CONTRA,
    SUM_OF_ENTRIES,
    VERSION,
    _OPENED_ONCE,
    KNOWN_PARTITION,
    DECIDED_ONCE,
    *_OF_EVERY_SCOPE,
)
WINDOW_CHECKS: Final = (_DECIDED_ONCE_SINCE, *_OF_EVERY_SCOPE)

WAITING: Final = """
SELECT (SELECT count(*) FROM quarantine WHERE replayed_at IS NULL) AS quarantine,
    (SELECT count(*) FROM outbox) AS outbox
"""

COUNTS: Final = """
SELECT (SELECT count(*) FROM audited_accounts) AS accounts,
    (SELECT count(*) FROM audited_entries) AS entries, outcomes, operations
FROM (
    SELECT count(*) AS outcomes, count(*) FILTER (WHERE leg = 'request') AS operations
    FROM audited_outcomes
) AS decided
"""

CLOSED_WITH_BALANCE: Final = """
SELECT '' AS what, jsonb_build_array(jsonb_build_object('account', a.number,
    'balance', a.balance, 'currency', a.currency)) AS rows
FROM audited_accounts a WHERE a.state = 'closed' AND a.balance <> 0
"""
