"""Transfers between partitions: their legs on all shards, and whether they add up."""

from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from microfin_tools.audit.report import Row
from microfin_tools.audit.scope import Scope
from microfin_tools.audit.shard import AuditedShard

_REQUESTS_AT_A_TIME: Final = 5_000

FORGOTTEN_AFTER_DAYS: Final = 30
"""The least age at which `microfin archive` lets the ledger forget a key."""

_FORGOTTEN_AFTER: Final = FORGOTTEN_AFTER_DAYS * 24 * 60 * 60 * 1000

LEG_COLUMNS: Final = """jsonb_build_object('leg', leg, 'status', status, 'account', account,
    'counterparty', counterparty, 'amount', amount, 'currency', currency,
    'reference', reference, 'partition', partition, 'log_offset', log_offset,
    'time', (extract(epoch FROM at) * 1000)::bigint)"""

# Most transfers are complete on one shard: only the others leave the database. A transfer that is
# complete in this query must be complete for `judge` as well.
_INCOMPLETE: Final = f"""
SELECT replace(operation_id::text, '-', '') AS operation, jsonb_agg({LEG_COLUMNS}) AS legs
FROM moving_legs
GROUP BY operation_id
HAVING NOT coalesce(
    count(*) FILTER (WHERE leg = 'request') = 1
    AND min(currency) = max(currency) AND min(amount) = max(amount)
    AND min(CASE leg WHEN 'credit' THEN counterparty ELSE account END)
        = max(CASE leg WHEN 'credit' THEN counterparty ELSE account END)
    AND min(CASE leg WHEN 'credit' THEN account ELSE counterparty END)
        = max(CASE leg WHEN 'credit' THEN account ELSE counterparty END)
    AND min(reference) IS NOT DISTINCT FROM max(reference) AND count(reference) IN (0, count(*))
    AND (
        (count(*) = 2 AND bool_or(leg = 'credit' AND status = 'settled'))
        OR (count(*) = 3 AND bool_or(leg = 'credit' AND status = 'rejected')
            AND bool_or(leg = 'refund' AND status = 'settled'))
    ), false)
ORDER BY operation_id
"""  # noqa: S608 - the columns are ours

# The same for one shard, without its legs: in a group of one currency and one pair, what remains is
# how many legs of which kind there are. A transfer of several groups is complete in none of them,
# or has two requests.
INCOMPLETE_OPERATIONS: Final = """
SELECT DISTINCT replace(operation_id::text, '-', '') AS operation
FROM (
    SELECT operation_id FROM moving_legs
    GROUP BY operation_id, currency, CASE leg WHEN 'credit' THEN counterparty ELSE account END,
        CASE leg WHEN 'credit' THEN account ELSE counterparty END
    HAVING (min(amount) = max(amount) AND min(reference) IS NOT DISTINCT FROM max(reference)
        AND count(reference) IN (0, count(*)) AND sum(CASE
        WHEN leg = 'request' THEN 1
        WHEN leg = 'credit' AND status = 'settled' THEN 10
        WHEN leg = 'credit' AND status = 'rejected' THEN 100
        WHEN leg = 'refund' AND status = 'settled' THEN 1000
        ELSE 10000
    END) IN (11, 1101)) IS NOT TRUE
) AS incomplete
"""

_REQUESTS: Final = "SELECT operation_id FROM audited_outcomes WHERE leg = 'request'"

_SAME_REQUESTS: Final = """
SELECT jsonb_agg(to_jsonb(outcomes)) AS rows FROM outcomes
WHERE operation_id = ANY($1::uuid[]) AND leg = 'request'
GROUP BY operation_id
"""


class LegOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one leg. `time` is milliseconds since the Unix epoch; `archived` says that it
    is in the shard's archive."""

    leg: Literal["request", "credit", "refund"]
    status: Literal["settled", "debited", "rejected"]
    account: str
    counterparty: str
    amount: int | None
    currency: str
    partition: int
    log_offset: int
    time: int
    reference: str | None = None
    shard: int = -1
    archived: bool = False

    def row(self) -> Row:
        """Return the leg as a row of a report."""
        row: Row = msgspec.to_builtins(self)
        return row


class Verdict(msgspec.Struct, frozen=True):
    """What the legs of one operation add up to.

    `complete`: nothing is missing. `in_transit`: debited, and not yet credited or refunded.
    `unexplained`: an earlier leg is missing, perhaps only because the shards were read at different
    moments. `wrong`: no further leg can make it right.
    """

    state: Literal["complete", "in_transit", "unexplained", "wrong"]
    invariant: int = 8
    what: str = ""


Found = tuple[str, list[LegOutcome]]

decode_legs = msgspec.json.Decoder(list[LegOutcome]).decode

_COMPLETE: Final = Verdict("complete")
_IN_TRANSIT: Final = Verdict("in_transit")


def generations(legs: Sequence[LegOutcome]) -> list[list[LegOutcome]]:
    """Split the legs of one id into those of the operations that had it, the first one first.

    An id follows from the Idempotency-Key. The ledger forgets the keys of what is archived, so a
    client who uses an old one again makes another operation of the same id.
    """
    requests = sorted((leg for leg in legs if leg.leg == "request"), key=lambda leg: leg.time)
    begins = [
        after.time - _FORGOTTEN_AFTER // 2
        for before, after in pairwise(requests)
        if before.archived and after.time - before.time >= _FORGOTTEN_AFTER
    ]
    split: list[list[LegOutcome]] = [[] for _ in range(len(begins) + 1)]
    for leg in legs:
        split[bisect_right(begins, leg.time)].append(leg)
    return split


def judge_all(legs: Sequence[LegOutcome]) -> Verdict:
    """Judge all operations that had one id: the first verdict that is not `complete`, if any."""
    verdicts = (judge(those) for those in generations(legs))
    return next((verdict for verdict in verdicts if verdict.state != "complete"), _COMPLETE)


def judge(legs: Sequence[LegOutcome]) -> Verdict:
    """Judge the legs of one operation, from all shards."""
    counts = Counter(leg.leg for leg in legs)
    if counts and max(counts.values()) > 1:
        return Verdict("wrong", 4, "one leg has two outcomes")
    by_name = {leg.leg: leg for leg in legs}
    request, credit, refund = by_name.get("request"), by_name.get("credit"), by_name.get("refund")
    if request is None:
        return Verdict("unexplained", what="a credit or refund without its debited request")
    if request.status != "debited":
        if credit or refund:
            return Verdict("wrong", what="a credit or refund of a request that debited nothing")
        return _COMPLETE
    return _judge_debited(request, credit, refund)


def _judge_debited(
    request: LegOutcome, credit: LegOutcome | None, refund: LegOutcome | None
) -> Verdict:
    if credit and not _same_transfer(request, credit, turned=True):
        return Verdict("wrong", what="the credit is of another amount, currency, pair or reference")
    if refund and not _same_transfer(request, refund, turned=False):
        return Verdict("wrong", what="the refund is of another amount, currency, pair or reference")
    if credit and credit.status == "settled":
        if refund:
            return Verdict("wrong", what="a transfer was credited and refunded as well")
        return _COMPLETE
    if refund and credit is None:
        return Verdict("unexplained", what="a refund without a rejected credit")
    return _COMPLETE if refund else _IN_TRANSIT


def _same_transfer(request: LegOutcome, other: LegOutcome, *, turned: bool) -> bool:
    pair = (other.counterparty, other.account) if turned else (other.account, other.counterparty)
    amount = request.amount if other.status == "rejected" else other.amount
    return (
        *(request.account, request.counterparty),
        *(request.amount, request.currency, request.reference),
    ) == (*pair, amount, other.currency, other.reference)


async def incomplete_transfers(
    shards: Sequence[AuditedShard], scopes: Sequence[Scope]
) -> AsyncIterator[str]:
    """Yield the operations whose legs, over all shards' snapshots, are not complete.

    Reads all shards at once in the order of operation ids, in constant memory.
    """
    streams = [_incomplete_here(shard, scope) for shard, scope in zip(shards, scopes, strict=True)]
    heads = [await anext(stream, None) for stream in streams]
    while any(heads):
        operation = min(head[0] for head in heads if head)
        legs: list[LegOutcome] = []
        for number, head in enumerate(heads):
            if head and head[0] == operation:
                legs += head[1]
                heads[number] = await anext(streams[number], None)
        if judge(legs).state != "complete":
            yield operation


async def _incomplete_here(shard: AuditedShard, scope: Scope) -> AsyncIterator[Found]:
    query = scope.clause + _INCOMPLETE
    async for row in shard.stream("incomplete", query, *scope.arguments):
        yield row["operation"], decode_legs(row["legs"])


async def requests_decided_twice(
    shard: AuditedShard, scope: Scope, others: Sequence[AuditedShard]
) -> AsyncIterator[tuple[AuditedShard, list[Row]]]:
    """Yield the requests that both `shard` and one of `others` have decided."""
    ids = []
    async for row in shard.stream("requests", scope.clause + _REQUESTS, *scope.arguments):
        ids.append(row["operation_id"])
        if len(ids) == _REQUESTS_AT_A_TIME:
            async for found in _also_decided(ids, others):
                yield found
            ids.clear()
    async for found in _also_decided(ids, others):
        yield found


async def _also_decided(
    ids: Sequence[object], others: Sequence[AuditedShard]
) -> AsyncIterator[tuple[AuditedShard, list[Row]]]:
    for other in others:
        for row in await other.connection.fetch(_SAME_REQUESTS, ids):
            yield other, msgspec.json.decode(row["rows"])
