"""The checks of holds in one shard (invariant 13); `checks` says what a check is."""

from typing import Final

from microfin_tools.audit.checks import Check

HELD: Final = Check(
    "what is held is what open holds have left",
    13,
    """
SELECT CASE
        WHEN a.number IS NULL THEN 'a hold of an account that does not exist'
        WHEN a.held < 0 OR a.held > a.balance THEN 'more is held than there is'
        ELSE 'what is held is not the sum of what the open holds have left'
    END AS what,
    jsonb_build_array(to_jsonb(a), jsonb_build_object('account', sums.account,
        'left_of_holds', sums.total::text)) AS rows
FROM audited_accounts a
FULL JOIN (
    SELECT account, sum(amount_left) AS total FROM holds GROUP BY account
) AS sums ON sums.account = a.number
WHERE a.number IS NULL OR a.held < 0 OR a.held > a.balance OR a.held <> coalesce(sums.total, 0)
""",
)

HELD_OF_ACCOUNTS: Final = Check(
    HELD.title,
    HELD.invariant,
    """
SELECT CASE WHEN a.held < 0 OR a.held > a.balance THEN 'more is held than there is'
        ELSE 'what is held is not the sum of what the open holds have left'
    END AS what,
    jsonb_build_array(to_jsonb(a), jsonb_build_object('left_of_holds', sums.total::text)) AS rows
FROM audited_accounts a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount_left), 0) AS total FROM holds WHERE account = a.number
) AS sums
WHERE a.held < 0 OR a.held > a.balance OR a.held <> sums.total
""",
)
"""The same for the accounts of a window."""

CHANGES_OF_HELD: Final = Check(
    "what is held is the sum of its changes",
    13,
    """
SELECT 'what is held is not the sum of what outcomes have changed of it' AS what,
    jsonb_build_array(to_jsonb(a), jsonb_build_object('sum_of_changes', sums.total::text)) AS rows
FROM accounts a
LEFT JOIN (
    SELECT account, sum(held_change) AS total FROM outcomes
    WHERE held_change IS NOT NULL GROUP BY account
) AS sums ON sums.account = a.number
LEFT JOIN archived_accounts past ON past.number = a.number
WHERE a.held <> coalesce(sums.total, 0) + coalesce(past.held, 0)
""",
)

_HOLD: Final = """
SELECT CASE
        WHEN made.operation_id IS NULL THEN 'no outcome made this hold'
        WHEN (open.account, open.receiver, open.amount, open.ends_at)
            IS DISTINCT FROM (made.account, made.counterparty, made.amount, made.ends_at)
            AND open.operation_id IS NOT NULL THEN 'the hold is not as its outcome made it'
        WHEN changes.accounts > 1 OR changes.account <> made.account
            THEN 'outcomes of other accounts took from this hold'
        WHEN changes.ends > 1 THEN 'the hold has ended twice'
        ELSE 'the hold has not left what its outcomes say'
    END AS what,
    jsonb_build_array(to_jsonb(open), to_jsonb(made), to_jsonb(changes)) AS rows
FROM {holds} AS named
LEFT JOIN holds open ON open.operation_id = named.hold
LEFT JOIN LATERAL (
    SELECT * FROM outcomes o WHERE o.operation_id = named.hold AND o.leg = 'request'
        AND o.kind = 'hold' AND o.status = 'settled'
) AS made ON true
LEFT JOIN LATERAL (
    SELECT sum(held_change) AS total, min(hold_left) AS least, min(account) AS account,
        count(DISTINCT account) AS accounts, count(*) FILTER (WHERE hold_left = 0) AS ends
    FROM outcomes o WHERE o.hold = named.hold AND o.held_change IS NOT NULL
) AS changes ON true
WHERE {complete} AND (made.operation_id IS NULL
    OR (open.operation_id IS NOT NULL
        AND (open.account, open.receiver, open.amount, open.ends_at)
            IS DISTINCT FROM (made.account, made.counterparty, made.amount, made.ends_at))
    OR coalesce(changes.account, made.account) <> made.account OR changes.accounts > 1
    OR changes.ends <> CASE WHEN open.operation_id IS NULL THEN 1 ELSE 0 END
    OR made.amount + coalesce(changes.total, 0) <> coalesce(open.amount_left, 0)
    OR coalesce(changes.least, made.amount) <> coalesce(open.amount_left, 0))
"""

# The outcome that made a hold may be archived when the hold has ended.
_LIVE: Final = "(made.operation_id IS NOT NULL OR NOT EXISTS (SELECT FROM archived_volumes))"

HOLDS: Final = Check(
    "every hold is as its outcomes left it",
    13,
    _HOLD.format(
        holds="""(
    SELECT operation_id AS hold FROM holds
    UNION SELECT operation_id FROM outcomes WHERE kind = 'hold' AND status = 'settled'
    UNION SELECT hold FROM outcomes WHERE held_change IS NOT NULL AND hold IS NOT NULL
)""",
        complete=f"(open.operation_id IS NOT NULL OR {_LIVE})",
    ),
)

HOLDS_OF_WINDOW: Final = Check(
    HOLDS.title,
    HOLDS.invariant,
    _HOLD.format(
        holds="""(
    SELECT DISTINCT coalesce(hold, operation_id) AS hold FROM audited_outcomes
    WHERE held_change IS NOT NULL
)""",
        complete=f"(open.operation_id IS NOT NULL OR {_LIVE})",
    ),
)

# An account that a growth moved has outcomes of several partitions, whose order no offset shows.
SHOWN_AS_HELD: Final = Check(
    "every outcome shows what was held",
    13,
    """
SELECT 'the outcome does not show what was held after it' AS what,
    jsonb_build_array(to_jsonb(o)) AS rows
FROM (
    SELECT operation_id, leg, held, held_change, account, coalesce(
        lag(coalesce(held, 0)) OVER (PARTITION BY account ORDER BY log_offset),
        (SELECT past.held FROM archived_accounts past WHERE past.number = account), 0) AS before
    FROM outcomes JOIN (
        SELECT account FROM outcomes
        WHERE account IN (
            SELECT account FROM outcomes WHERE held IS NOT NULL OR held_change IS NOT NULL)
        GROUP BY account HAVING min(partition) = max(partition)
    ) AS unmoved USING (account)
    WHERE status <> 'rejected'
) AS shown
JOIN outcomes o USING (operation_id, leg)
WHERE coalesce(shown.held, 0) <> shown.before + coalesce(shown.held_change, 0)
""",
)

HOLD_CHECKS: Final = (HELD, CHANGES_OF_HELD, HOLDS, SHOWN_AS_HELD)
"""Those of a whole shard."""

HOLD_CHECKS_OF_ARCHIVE: Final = (CHANGES_OF_HELD, SHOWN_AS_HELD)
"""Those of an archive, where no hold is open."""

HOLD_CHECKS_OF_WINDOW: Final = (HELD_OF_ACCOUNTS, HOLDS_OF_WINDOW)
"""Those of what came after the last audit."""
