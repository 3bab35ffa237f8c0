"""The ledger and its archive compared: one goes on exactly where the other ends.

The archive's own sweeps show that its rows explain its accounts. Here these accounts are compared
with those from which the ledger goes on, and its rows with the sums that the ledger kept of them.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, islice
from typing import Any, Final

from microfin_tools.audit.checker import Checker
from microfin_tools.audit.impossible import AuditImpossible
from microfin_tools.audit.legs import generations
from microfin_tools.audit.report import LISTED, Findings, Row
from microfin_tools.audit.row_hash import columns_of, hash_of
from microfin_tools.audit.second_look import legs_of
from microfin_tools.audit.shard import AuditedShard

_IN_ONE_SET: Final = 300_000
"""How many legs of one database are compared at a time, about."""

_AT_A_TIME: Final = 1_000

_CONTENTS: Final = """
SELECT volume, count(*) AS rows, sum({row}) AS digest FROM {table} GROUP BY volume
"""

_KEPT: Final = """
SELECT volume, {table} AS rows, {table}_digest AS digest FROM archived_volumes ORDER BY volume
"""

_ACCOUNT: Final = (
    "number, owner, currency, opened_at, balance, held, seq, entry_time, version, state"
)

_ACCOUNTS_DIGEST: Final = f"""
SELECT count(*), sum(('x' || left(md5(record_send(ROW({_ACCOUNT}))), 16))::bit(64)::bigint)
FROM {{table}}
"""  # noqa: S608 - the columns are ours

_ACCOUNTS: Final = f"SELECT {_ACCOUNT} FROM {{table}} ORDER BY number"  # noqa: S608 - all ours

_CONTRA: Final = "SELECT partition, contra, currency, balance FROM {table} WHERE balance <> 0"

_PARTITIONS_THERE: Final = (
    "SELECT partition, count(*), max(log_offset) FROM outcomes GROUP BY partition"
)
_PARTITIONS_HERE: Final = "SELECT partition, outcomes, last_offset FROM archived_partitions"

_LEGS: Final = """
SELECT operation_id::text || ' ' || leg FROM outcomes
WHERE operation_id BETWEEN '{first}' AND '{last}'
"""


async def check_volumes(shard: AuditedShard, archive: AuditedShard) -> None:
    """Raise `AuditImpossible` if the archive is ahead of the ledger: then a volume is in both."""
    newest = await archive.connection.fetchval("SELECT max(volume) FROM volumes")
    if newest is not None and (shard.archived_to is None or newest > shard.archived_to):
        raise AuditImpossible(
            f"The archive of shard {shard.number} has volume {newest}, which has not left the "
            "ledger: `microfin archive` is at work, or it was broken off. Let it end, or run it "
            "again; then audit."
        )


async def compare_ends(checker: Checker, shard: AuditedShard, archive: AuditedShard) -> None:
    """Find what the archive of `shard` has otherwise than the ledger says."""
    checker.step("the archive is compared with what left the ledger")
    for table in ("outcomes", "entries"):
        await _compare_contents(checker.findings, shard, archive, table)
    checker.step("the archived balances are compared")
    await _compare_accounts(checker.findings, shard, archive)
    for what, here, there in (
        (
            "the archived contra balance is not that of the archive",
            _CONTRA.format(table="archived_contra_balances"),
            _CONTRA.format(table="contra_balances"),
        ),
        (
            "the archive has not what this partition had decided",
            _PARTITIONS_HERE,
            _PARTITIONS_THERE,
        ),
    ):
        rows = _differing(await shard.connection.fetch(here), await archive.connection.fetch(there))
        for row in rows:
            checker.findings.violation(3, what, shard.number, [row])


async def _compare_contents(
    findings: Findings, shard: AuditedShard, archive: AuditedShard, table: str
) -> None:
    """Compare each volume's rows with the counts and hashes that the ledger kept."""
    row_hash = hash_of(await columns_of(archive.connection, table))
    has = {
        row["volume"]: (row["rows"], row["digest"])
        for row in await archive.connection.fetch(_CONTENTS.format(row=row_hash, table=table))
    }
    for row in await shard.connection.fetch(_KEPT.format(table=table)):
        found = has.pop(row["volume"], (0, 0))
        if found != (row["rows"], row["digest"]):
            named = {"volume": row["volume"], table: row["rows"], "in_archive": found[0]}
            what = f"the {table} of this volume in the archive are not those that left the ledger"
            findings.violation(4, what, shard.number, [named])
    for volume, found in has.items():
        what = f"the archive has {table} of a volume that never left the ledger"
        findings.violation(4, what, shard.number, [{"volume": volume, "in_archive": found[0]}])


async def _compare_accounts(findings: Findings, shard: AuditedShard, archive: AuditedShard) -> None:
    here, there = await asyncio.gather(
        shard.connection.fetchrow(_ACCOUNTS_DIGEST.format(table="archived_accounts")),
        archive.connection.fetchrow(_ACCOUNTS_DIGEST.format(table="accounts")),
    )
    if tuple(here) == tuple(there):
        return
    ours = shard.stream("ours", _ACCOUNTS.format(table="archived_accounts"))
    theirs = archive.stream("theirs", _ACCOUNTS.format(table="accounts"))
    one, other = await anext(ours, None), await anext(theirs, None)
    while one or other:
        first = min(it["number"] for it in (one, other) if it)
        mine = one if one and one["number"] == first else None
        its = other if other and other["number"] == first else None
        if mine is None or its is None or tuple(mine) != tuple(its):
            what = "the ledger does not go on from the balance that the archive ends with"
            rows = [_shown(it) for it in (mine, its) if it is not None]
            findings.violation(3, what, shard.number, rows)
        one = await anext(ours, None) if mine else one
        other = await anext(theirs, None) if its else other


def _differing(here: Sequence[Any], there: Sequence[Any]) -> list[Row]:
    """Return the rows that only one side has."""
    differing = {tuple(row) for row in here} ^ {tuple(row) for row in there}
    by_values = {tuple(row): row for row in (*there, *here)}
    return [_shown(by_values[values]) for values in sorted(differing, key=str)[:LISTED]]


def _shown(row: Any) -> Row:
    return {
        name: value if value is None or isinstance(value, int) else str(value)
        for name, value in row.items()
    }


async def find_legs_in_both(
    checker: Checker, shards: Sequence[AuditedShard], archives: Sequence[AuditedShard]
) -> set[str]:
    """Return the operations of which an archive and any other database have the same leg.

    Each database gives its legs of one range of operations after the other, which are random.
    """
    checker.step("no leg is in the archive and elsewhere")
    doubled: set[str] = set()
    ranges = 1 + checker.findings.checked.outcomes // _IN_ONE_SET
    for number in range(ranges):
        first = (number << 128) // ranges
        last = ((number + 1 << 128) // ranges) - 1
        query = _LEGS.format(first=f"{first:032x}", last=f"{last:032x}")
        found = [(source, await _legs(source, query)) for source in (*archives, *shards)]
        for (one, legs), (_, others) in combinations(found, 2):
            if one.is_archive:
                doubled |= {_operation(leg) for leg in legs & others}
    return doubled


async def judge_legs_in_both(
    findings: Findings,
    shards: Sequence[AuditedShard],
    archives: Sequence[AuditedShard],
    doubled: set[str],
) -> None:
    """Find those of `doubled` of which one operation has the same leg twice.

    A client may have used an old key again, which the ledger had forgotten: then the same id is of
    two operations.
    """
    remaining = iter(sorted(doubled))
    while operations := list(islice(remaining, _AT_A_TIME)):
        for operation, legs in (await legs_of([*shards, *archives], operations)).items():
            for those in generations(legs):
                if max(Counter(leg.leg for leg in those).values(), default=0) > 1:
                    what = "a leg is in the archive, and was decided elsewhere as well"
                    rows = [{"operation": operation, **leg.row()} for leg in those]
                    findings.violation(4, what, None, rows)


def _operation(leg: bytes) -> str:
    return leg.decode().partition(" ")[0].replace("-", "")


async def _legs(source: AuditedShard, query: str) -> set[bytes]:
    legs: set[bytes] = set()
    await source.copy(query, legs.update, separator=b"\1")
    return legs
