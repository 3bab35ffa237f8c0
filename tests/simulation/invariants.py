"""Invariants 1 to 8, 12 and 13 (docs/guide/invariants.md), checked when a schedule is at rest."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from microfin.ledger.operation import Outcome
from microfin.ledger.wire import Command
from simulation.broker import Topic
from simulation.database import Database
from simulation.effects import (
    Effect,
    Effects,
    committed_outcomes,
    committed_status,
)
from simulation.journal import Asked, Journal
from simulation.naive_ledger import NaiveAccount, NaiveLedger
from simulation.plan import Plan
from simulation.violation import Violation


def check_at_rest(
    plan: Plan, databases: Sequence[Database], topic: Topic, effects: Effects, journal: Journal
) -> list[Violation]:
    """Return all that is wrong."""
    asked_for = [it for it in effects.committed if it.outcome.operation in journal.asked]
    in_turn = [
        it
        for it in effects.committed
        if it.outcome.operation in journal.asked or it.outcome.kind == "expire"
    ]
    return [
        *_unasked(effects.committed, journal),
        *_at_rest(databases, topic),
        *_zero_sum(databases),
        *_explained(databases),
        *_once(effects.committed, databases),
        *_answers(databases, journal),
        *_arrival(databases),
        *_notes(databases, journal),
        *_held(databases),
        *_order(asked_for, journal),
        *_decided_in_turn(plan, topic, in_turn, journal),
    ]


def _unasked(committed: Sequence[Effect], journal: Journal) -> Iterator[Violation]:
    """Nobody but clients asks for anything; what a growth marks the log with changes nothing."""
    for effect in committed:
        outcome = effect.outcome
        is_marker = outcome.account.startswith("0") and outcome.reason == "expired"
        is_end = outcome.kind == "expire" and outcome.hold in journal.asked
        if outcome.operation not in journal.asked and not (is_marker or is_end):
            yield Violation(4, f"nobody asked for {outcome.operation}, and it was decided")


def undecided(databases: Sequence[Database], topic: Topic) -> dict[int, tuple[int, int]]:
    """Return the partitions that are not at their log's end, with both offsets."""
    found = {}
    for number, end in topic.ends().items():
        row = databases[number % len(databases)].tables.partitions.get(number)
        if (at := row["next_offset"] if row else 0) != end:
            found[number] = (at, end)
    return found


def _at_rest(databases: Sequence[Database], topic: Topic) -> Iterator[Violation]:
    for number, (at, end) in undecided(databases, topic).items():
        yield Violation(5, f"partition {number} is at {at} of {end} and makes no progress")
    for database in databases:
        for partition, offset, step in database.tables.outbox:
            yield Violation(
                8, f"the outbox row {partition}:{offset}.{step} is never sent, or never deleted"
            )


def _zero_sum(databases: Sequence[Database]) -> Iterator[Violation]:
    for database in databases:
        sums: defaultdict[str, int] = defaultdict(int)
        for row in database.tables.accounts.values():
            sums[row["currency"]] += row["balance"]
            if row["balance"] < 0:
                yield Violation(2, f"{row['number']} has {row['balance']}")
        for (_, _, currency), balance in database.tables.contra.items():
            sums[currency] += balance
        for currency, total in sums.items():
            if total != 0:
                yield Violation(1, f"{database.name} sums up to {total} {currency}")


def _explained(databases: Sequence[Database]) -> Iterator[Violation]:
    for database in databases:
        lines = defaultdict(list)
        for (number, seq), entry in sorted(database.tables.entries.items()):
            lines[number].append((seq, entry.amount, entry.balance_after))
        for number, row in database.tables.accounts.items():
            balance = 0
            for expected, (seq, amount, after) in enumerate(lines[number], start=1):
                balance += amount
                if (seq, after) != (expected, balance):
                    yield Violation(3, f"entry {seq} of {number} does not follow the one before")
            if (row["balance"], row["seq"]) != (balance, len(lines[number])):
                yield Violation(3, f"{number} is not as its last entry left it")


_ENTRIES = {
    ("deposit", "request", "settled"): 1,
    ("withdraw", "request", "settled"): 1,
    ("transfer", "request", "settled"): 2,
    ("transfer", "request", "debited"): 1,
    ("transfer", "credit", "settled"): 1,
    ("transfer", "refund", "settled"): 1,
    ("capture", "request", "debited"): 1,
    ("capture", "credit", "settled"): 1,
    ("capture", "refund", "settled"): 1,
}


def _entries_of(outcome: Outcome) -> int:
    """Return how many entries an outcome makes."""
    if (outcome.kind, outcome.leg, outcome.status) == ("capture", "request", "settled"):
        return 2 if outcome.counterparty else 1
    return _ENTRIES.get((outcome.kind, outcome.leg, outcome.status), 0)


def _once(committed: Sequence[Effect], databases: Sequence[Database]) -> Iterator[Violation]:
    seen = set()
    for effect in committed:
        outcome = effect.outcome
        if (outcome.operation, outcome.leg) in seen:
            yield Violation(4, f"the {outcome.leg} of {outcome.operation} was decided twice")
        seen.add((outcome.operation, outcome.leg))
        expected = _entries_of(outcome)
        if len(effect.entries) != expected:
            yield Violation(
                4,
                f"the {outcome.leg} of {outcome.operation} has {len(effect.entries)} entries "
                f"where it should have {expected}",
            )
    for database in databases:
        for entry in database.tables.entries.values():
            if entry.operation != "before" and (entry.operation, entry.leg) not in seen:
                yield Violation(4, f"an entry of {entry.operation} has no outcome")


def _answers(databases: Sequence[Database], journal: Journal) -> Iterator[Violation]:
    for operation, asked in journal.asked.items():
        status = committed_status(databases, operation)
        if asked.acknowledged is not None and status == "undecided":
            yield Violation(5, f"{operation} was acknowledged, and never took effect")
        if asked.nothing_was_done and status != "undecided":
            yield Violation(5, f"nothing was to be done of {operation}, and it is {status}")
        yield from _first_answer(committed_outcomes(databases, operation), status, asked)


def _first_answer(legs: dict[str, Outcome], status: str, asked: Asked) -> Iterator[Violation]:
    operation = asked.command.operation
    own = legs.get("refund") if status == "refunded" else legs.get("request")
    for response in asked.responses:
        if response.kind == "key_reused" and not asked.amended:
            yield Violation(4, f"{operation} was refused as another body, and there is only one")
        if response.operation is None or own is None:
            continue
        answered = (response.operation.status, response.operation.seq, response.operation.balance)
        if answered != (status, own.seq, own.balance):
            yield Violation(
                4,
                f"{operation} was answered {answered}, and is {(status, own.seq, own.balance)}",
            )


def _arrival(databases: Sequence[Database]) -> Iterator[Violation]:
    in_transit = sum(
        balance
        for database in databases
        for (_, contra, _), balance in database.tables.contra.items()
        if contra == "in_transit"
    )
    if in_transit:
        yield Violation(8, f"{in_transit} are in transit at rest")
    for database in databases:
        for operation, leg in database.tables.outcomes:
            if leg != "request":
                continue
            legs = committed_outcomes(databases, operation)
            arrived = [
                name for name, outcome in legs.items()
                if name != "request" and outcome.status == "settled"
            ]  # fmt: skip
            if legs["request"].status == "debited" and len(arrived) != 1:
                yield Violation(8, f"{operation} was debited and has arrived as {arrived}")
            elif "refund" in legs and "credit" not in legs:
                yield Violation(8, f"{operation} is refunded, and its credit could still come")


def _notes(databases: Sequence[Database], journal: Journal) -> Iterator[Violation]:
    for database in databases:
        for (operation, leg), outcome in database.tables.outcomes.items():
            if operation not in journal.asked:
                continue
            command = journal.asked[operation].command
            metadata = command.metadata if leg == "request" else None
            if (outcome.reference, outcome.metadata) != (command.reference, metadata):
                yield Violation(
                    12,
                    f"the {leg} of {operation} has {outcome.reference!r} and {outcome.metadata} "
                    f"where {command.reference!r} and {metadata} were asked for",
                )
        for entry in database.tables.entries.values():
            asked = journal.asked.get(entry.operation)
            if asked is not None and entry.reference != asked.command.reference:
                yield Violation(
                    12,
                    f"an entry of {entry.operation} has {entry.reference!r} where "
                    f"{asked.command.reference!r} was asked for",
                )


def _held(databases: Sequence[Database]) -> Iterator[Violation]:
    """What is held is what open holds have left, and what outcomes changed."""
    for database in databases:
        tables = database.tables
        left: defaultdict[str, int] = defaultdict(int)
        changes: defaultdict[str, int] = defaultdict(int)
        by_hold: defaultdict[str, int] = defaultdict(int)
        for hold in tables.holds.values():
            left[hold.account] += hold.left
        for outcome in tables.outcomes.values():
            changes[outcome.account] += outcome.held_change
            by_hold[outcome.hold or outcome.operation] += outcome.held_change
        for number, row in tables.accounts.items():
            found = (row["held"], left[number], changes[number])
            if len(set(found)) > 1 or not 0 <= row["held"] <= row["balance"]:
                yield Violation(
                    13,
                    f"{number} has {row['balance']}; held, left of its holds and changed by its "
                    f"outcomes: {found}",
                )
        for hold, total in by_hold.items():
            open_one = tables.holds.get(hold)
            if total != (open_one.left if open_one else 0):
                yield Violation(13, f"the outcomes of the hold {hold} leave {total}: {open_one}")


def _order(committed: Sequence[Effect], journal: Journal) -> Iterator[Violation]:
    by_account: defaultdict[str, list[Asked]] = defaultdict(list)
    for effect in committed:
        if effect.outcome.leg == "request":
            by_account[effect.outcome.account].append(journal.asked[effect.outcome.operation])
    for account, effects in by_account.items():
        for place, later in enumerate(effects):
            # An `open` whose number was in use ends on an account that only its final answer names.
            passed_on = later.command.account != account
            acknowledged = later.settled if passed_on else later.acknowledged
            for earlier in effects[:place]:
                if acknowledged is not None and acknowledged < earlier.sent:
                    yield Violation(
                        7,
                        f"on {account} {earlier.command.operation} took effect before "
                        f"{later.command.operation}, which was acknowledged before it was sent",
                    )


def _decided_in_turn(
    plan: Plan, topic: Topic, committed: Sequence[Effect], journal: Journal
) -> Iterator[Violation]:
    ledger = NaiveLedger()
    for planned in plan.accounts:
        if not planned.opened_by:
            ledger.accounts[planned.number] = NaiveAccount(
                planned.user, planned.currency, planned.balance, seq=int(planned.balance > 0)
            )
    for effect in committed:
        outcome = effect.outcome
        bodies = [] if outcome.kind == "expire" else _bodies(journal.asked[outcome.operation])
        expired = _has_expired(topic, effect)
        wrong = ledger.add(effect, bodies, _appended(topic, effect), expired=expired)
        if wrong:
            yield Violation(7, f"the {outcome.leg} of {outcome.operation} {wrong}")
            return


def _appended(topic: Topic, effect: Effect) -> int:
    """Return when the record of a leg came to the log at first."""
    record = topic.records[effect.partition][effect.outcome.offset]
    appended: int = json.loads(record.value or b"{}").get("appended", record.time)
    return appended


def _has_expired(topic: Topic, effect: Effect) -> bool:
    """Whether the record that decided a leg came to the log after its deadline."""
    record = topic.records[effect.partition][effect.outcome.offset]
    command = json.loads(record.value or b"{}")
    deadline = command.get("deadline", 0)
    return bool(deadline) and command.get("appended", record.time) > deadline


def _bodies(asked: Asked) -> list[Command]:
    command = asked.command
    if not asked.amended:
        return [command]
    return [command, replace(command, amount=str(int(command.amount or "1") + 1))]
