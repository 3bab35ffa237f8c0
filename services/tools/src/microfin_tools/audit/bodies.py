"""Checks of outcomes against the hash of the body that was requested.

The hash is BLAKE2, which PostgreSQL does not have. So the outcomes come here, in pieces, and their
bodies are built again from the columns. The columns of rejected outcomes do not hold the whole
body, so these are not checked.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from microfin.ledger.money import EXPONENTS, to_canonical_amount
from microfin.ledger.operation import AccountState
from microfin.ledger.wire import Command, body_hash
from microfin.postgres.rows import metadata_of
from microfin_tools.audit.report import LISTED, Findings, Row
from microfin_tools.audit.scope import ASKED_ON_HOLD, Scope
from microfin_tools.audit.shard import AuditedShard
from microfin_tools.audit.sweeps import BODIES, FIELDS_END

_STATES: Final[tuple[AccountState, ...]] = ("open", "frozen", "closed")

_BODIES: Final = """
SELECT operation_id, leg, kind, user_id, account, counterparty, amount, currency, reference,
    metadata, hold, hold_left, (extract(epoch FROM ends_at - at) * 1000)::bigint AS lifetime,
    body_hash
FROM audited_outcomes o WHERE status <> 'rejected'
"""

_NOT_SWEPT: Final = f"{_BODIES} AND (kind = 'set_state' OR {ASKED_ON_HOLD})"

_HASH: Final = 16
"""Bytes of a body's hash."""

_OUTCOME: Final = "SELECT to_jsonb(outcomes) FROM outcomes WHERE operation_id = $1 AND leg = $2"

# `seq` shows which of an account's changes of state was the last, and within one partition the log
# does. Changes without an entry between them may be of several partitions, if a growth moved the
# account: any of them may be the last.
_LAST_STATES: Final = """
SELECT a.number, a.state, array_agg(last.user_id) AS users, array_agg(last.body_hash) AS hashes,
    jsonb_build_array(to_jsonb(a)) || jsonb_agg(last.outcome) AS rows
FROM (
    SELECT DISTINCT ON (account, partition) account, user_id, body_hash, outcome
    FROM (
        SELECT account, partition, log_offset, user_id, body_hash, to_jsonb(o) AS outcome,
            rank() OVER (PARTITION BY account ORDER BY seq DESC) AS place
        FROM audited_outcomes o WHERE kind = 'set_state' AND status = 'settled'
    ) AS changes
    WHERE place = 1 ORDER BY account, partition, log_offset DESC
) AS last
JOIN accounts a ON a.number = last.account
GROUP BY a.number
"""

BODIES_STEP: Final = "every outcome is of the body that was asked for"
STATES_STEP: Final = "every state is the one last set"
"""The titles of `check_bodies` and `check_states`, for the progress display."""


class BodySweep:
    """Whether any outcome of a shard is suspicious: its body, its shape or its account."""

    def __init__(self) -> None:
        self.suspicious = False

    async def run(self, shard: AuditedShard) -> None:
        """Hash the bodies of all outcomes, as far as their columns hold them."""
        await shard.copy(BODIES, self._take, separator=FIELDS_END)

    def _take(self, lines: list[bytes]) -> None:
        own = 2 * _HASH
        stored = b"".join([line[:own] for line in lines])
        hashes = [blake2b(line[own:], digest_size=_HASH).hexdigest() for line in lines]
        if "".join(hashes).encode() != stored:
            self.suspicious = True


async def check_bodies(
    shard: AuditedShard, scope: Scope, findings: Findings, *, after_sweep: bool = False
) -> None:
    """Find the outcomes whose columns are not those of their body.

    `after_sweep`, only of those that `BodySweep` leaves out.
    """
    query = scope.clause + (_NOT_SWEPT if after_sweep else _BODIES)
    async for row in shard.stream("bodies", query, *scope.arguments):
        if not _is_body_of(row):
            rows = []
            if len(findings.violations) < LISTED:
                whole = await shard.connection.fetchval(_OUTCOME, row["operation_id"], row["leg"])
                rows = [msgspec.json.decode(whole)]
            what = "the columns are not those of the body that was asked for"
            findings.violation(4, shard.say(what), shard.number, rows)


async def check_states(shard: AuditedShard, scope: Scope, findings: Findings) -> None:
    """Find the accounts whose state is not the one that was last set."""
    async for row in shard.stream("states", scope.clause + _LAST_STATES, *scope.arguments):
        states = {
            state_of(row["number"], user, body)
            for user, body in zip(row["users"], row["hashes"], strict=True)
        }
        # `check_bodies` finds a hash that is of no state at all.
        if row["state"] not in states and None not in states:
            rows: list[Row] = msgspec.json.decode(row["rows"])
            what = "the state is not the one that was last set"
            findings.violation(4, shard.say(what), shard.number, rows)


def _is_body_of(row: Any) -> bool:
    if row["kind"] == "set_state":
        return state_of(row["account"], row["user_id"], row["body_hash"]) is not None
    if row["currency"] not in EXPONENTS:
        return False
    stored: bytes = row["body_hash"]
    return any(body_hash(asked) == stored for asked in _bodies_of(row))


def _bodies_of(row: Any) -> Iterator[Command]:
    """Yield the bodies that an outcome with these columns can be of."""
    amount = row["amount"]
    asked = Command(
        kind=row["kind"],
        leg=row["leg"],
        operation="",
        account=row["account"],
        user=row["user_id"].hex if row["user_id"] else "",
        counterparty=row["counterparty"],
        amount=to_canonical_amount(amount, row["currency"]) if amount is not None else "",
        # A request to move money names no currency: it is that of the account.
        currency=row["currency"] if row["kind"] == "open" or row["leg"] != "request" else "",
        reference=row["reference"] or "",
        metadata=metadata_of(row["metadata"]),
        hold=row["hold"].hex if row["hold"] else "",
        lifetime=row["lifetime"] or 0,
    )
    yield asked
    if row["kind"] == "capture" and row["leg"] == "request":
        # A capture without an amount takes all that is left; the last one may leave nothing.
        yield from (
            replace(asked, amount=amount, last=last)
            for amount in (asked.amount, "")
            for last in (False, True)
            if row["hold_left"] == 0
        )


def state_of(account: str, user: Any, stored: bytes) -> AccountState | None:
    """Return the state that a set_state of `account` by `user` requested, by its body's hash."""
    for state in _STATES:
        asked = Command(
            kind="set_state",
            leg="request",
            operation="",
            account=account,
            user=user.hex if user else "",
            state=state,
        )
        if body_hash(asked) == stored:
            return state
    return None
