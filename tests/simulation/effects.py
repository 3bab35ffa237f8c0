"""What is committed, in the order of the commits, and what can be checked at that very moment.

It sees the transactions from the databases' side and shares no code with the product's decisions.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec
from aiokafka.partitioner import murmur2

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Entry
from microfin_worker.ports import BatchWrite, Place
from simulation.broker import Topic
from simulation.database import Database
from simulation.history import History
from simulation.journal import Asked, Response
from simulation.sessions import Row
from simulation.violation import Violation


class Effect(msgspec.Struct, frozen=True):
    """One committed leg, the partition that decided it, and how many partitions there were."""

    outcome: Outcome
    partition: int
    partition_count: int
    entries: list[Entry]


class Effects:
    """All committed legs, and the violations found while they came."""

    def __init__(self, history: History) -> None:
        self.committed: list[Effect] = []
        self.violations: list[Violation] = []
        self._counts: dict[int, int] = {}
        self._history = history

    def violate(self, invariant: int, what: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(invariant, what))
        self._history.note("check", "VIOLATION of {}: {}", invariant, what)

    def commit(self, database: Database, place: Place, write: BatchWrite, client: str) -> None:
        """Add a batch that is about to be committed."""
        decisions = write.decisions
        self._history.note(
            client, "commits {}:{}-{} (epoch {}, generation {}): {}", place.partition,
            place.next_offset, write.next_offset - 1, place.epoch, place.routing.generation,
            _summary(decisions.outcomes, len(decisions.outbox), len(write.sent)),
        )  # fmt: skip
        row = database.tables.partitions[place.partition]
        count = row["partition_count"]
        if row["epoch"] != place.epoch:
            self.violate(
                6, f"{client} commits under epoch {place.epoch}, and {row['epoch']} came after it"
            )
        for number in decisions.accounts:
            if partition_of(number, count) != place.partition:
                self.violate(
                    6, f"{client} changes {number}, which belongs to partition "
                    f"{partition_of(number, count)} of {count}"
                )  # fmt: skip
        self._check_sums(client, write)
        entries = defaultdict(list)
        for entry in decisions.entries:
            entries[(entry.operation, entry.leg)].append(entry)
        for outcome in decisions.outcomes:
            own = entries.pop((outcome.operation, outcome.leg), [])
            self.committed.append(Effect(outcome, place.partition, count, own))
        for operation, leg in entries:
            self.violate(4, f"the {leg} of {operation} has entries and no outcome")

    def route(self, database: Database, row: Row) -> None:
        """Add a row of `routing`: one generation has one routing, and a later one has more."""
        before = database.tables.routing
        old = before["generation"], before["partition_count"]
        new = row["generation"], row["partition_count"]
        if new != old and not (new[0] == old[0] + 1 and new[1] > old[1]):
            self.violate(6, f"{database.name} goes from routing {old} to {new}")
        if self._counts.setdefault(*new) != new[1]:
            self.violate(
                6, f"generation {new[0]} has {self._counts[new[0]]} and {new[1]} partitions"
            )

    def _check_sums(self, client: str, write: BatchWrite) -> None:
        decisions = write.decisions
        entries = sum(entry.amount for entry in decisions.entries)
        if entries + sum(decisions.contra.values()) != 0:
            self.violate(1, f"{client} commits entries that its contra balances do not mirror")
        if any(account.balance < 0 for account in decisions.accounts.values()):
            self.violate(2, f"{client} commits a negative balance")
        if any(not 0 <= it.held <= it.balance for it in decisions.accounts.values()):
            self.violate(13, f"{client} commits that more is held than there is")

    def look(
        self, databases: Sequence[Database], topic: Topic, asked: Asked, response: Response
    ) -> None:
        """Check an answer at the moment in which the client has it: is it so already?"""
        operation = asked.command.operation
        if response.kind == "final" and response.operation is not None:
            status = committed_status(databases, operation)
            if status != response.operation.status:
                self.violate(
                    5,
                    f"{operation} was answered to be {response.operation.status}, and is {status}",
                )
        elif response.kind == "accepted" and operation not in topic.operations:
            self.violate(5, f"{operation} was accepted, and is not in the log")


def partition_of(number: str, count: int) -> int:
    """Return an account's partition by Kafka's own hash, not by the product's."""
    return (murmur2(number.encode()) & 0x7FFFFFFF) % count


def committed_outcomes(databases: Sequence[Database], operation: str) -> dict[str, Outcome]:
    """Return an operation's committed outcomes by their legs."""
    return {
        leg: database.tables.outcomes[(operation, leg)]
        for database in databases
        for leg in ("request", "credit", "refund")
        if (operation, leg) in database.tables.outcomes
    }


def committed_status(databases: Sequence[Database], operation: str) -> str:
    """Return an operation's status, derived from the outcomes of its legs."""
    legs = committed_outcomes(databases, operation)
    request, credit, refund = (legs.get(leg) for leg in ("request", "credit", "refund"))
    if request is None:
        return "undecided"
    if request.status != "debited":
        return request.status
    if credit is not None and credit.status == "settled":
        return "settled"
    if refund is not None and refund.status == "settled":
        return "refunded"
    return "in_transit"


def _summary(outcomes: Sequence[Outcome], sends: int, deletes: int) -> str:
    words = [
        f"{outcome.leg} of {outcome.operation[:6]} {outcome.status}"
        + (f" ({outcome.reason})" if outcome.reason else "")
        + (f" seq {outcome.seq} balance {outcome.balance}" if outcome.seq is not None else "")
        for outcome in outcomes
    ]
    words += [f"sends {sends} on"] if sends else []
    words += [f"deletes {deletes} sent"] if deletes else []
    return ", ".join(words) or "nothing new"
