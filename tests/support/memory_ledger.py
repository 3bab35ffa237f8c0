"""A ledger in memory that applies decisions as the store would, for tests of the decision core.

It refuses what PostgreSQL's columns would refuse.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

from microfin.ledger.decision import account_numbers, decide, leg_keys
from microfin.ledger.hold_rules import hold_ids
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Answer, Decisions, Entry, Hold, LegKey, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command
from simulation.column_types import refuse_misfits


class PartitionLedger:
    """All that one partition's rows hold."""

    def __init__(self, partition: int, routing: Routing) -> None:
        self.partition = partition
        self.routing = routing
        self.accounts: dict[str, Account] = {}
        self.outcomes: dict[LegKey, Outcome] = {}
        self.entries: list[Entry] = []
        self.contra: dict[tuple[str, str], int] = defaultdict(int)
        self.sent: list[Command] = []
        self.answers: list[Answer] = []
        self.quarantined: list[Received] = []
        self.holds: dict[str, Hold] = {}

    def settle(self, batch: Sequence[Received]) -> Decisions:
        """Decide one batch and apply it."""
        known = {key: self.outcomes[key] for key in leg_keys(batch) if key in self.outcomes}
        holds = {it: self.holds[it] for it in hold_ids(batch) if it in self.holds}
        numbers = account_numbers(batch, self.partition, self.routing, holds)
        accounts = {number: self.accounts[number] for number in numbers if number in self.accounts}
        decisions = decide(self.partition, self.routing, accounts, known, batch, holds)
        refuse_misfits(decisions)
        for outcome in decisions.outcomes:
            key = (outcome.operation, outcome.leg)
            assert key not in self.outcomes, "a second outcome for one leg"
            self.outcomes[key] = outcome
        self.accounts.update(decisions.accounts)
        for hold in decisions.holds.values():
            assert hold.left >= 0
            self.holds[hold.operation] = hold
            if not hold.left:
                del self.holds[hold.operation]
        self.entries.extend(decisions.entries)
        for key, change in decisions.contra.items():
            self.contra[key] += change
        self.sent.extend(row.command for row in decisions.outbox)
        self.answers.extend(decisions.answers)
        self.quarantined.extend(decisions.quarantined)
        return decisions

    def state(self) -> tuple[object, ...]:
        """All that must not depend on how the log was split into batches."""
        return (
            self.accounts,
            self.outcomes,
            self.entries,
            {key: value for key, value in self.contra.items() if value},
            self.sent,
            self.answers,
            self.quarantined,
            self.holds,
        )


class Cluster:
    """Several partitions with a log each; credits and refunds travel from one to another."""

    def __init__(self, partitions: int) -> None:
        self.routing = Routing(1, partitions)
        self.ledgers = [PartitionLedger(number, self.routing) for number in range(partitions)]
        self.logs: list[deque[Received]] = [deque() for _ in range(partitions)]
        self.offsets = [0] * partitions
        self.time = 1_000

    def append(self, command: Command, partition: int | None = None) -> None:
        """Append a command to its partition's log, or to another one."""
        if partition is None:
            partition = partition_of(command.account, self.routing.partition_count)
        self.time += 1
        self.logs[partition].append(Received(self.offsets[partition], self.time, command))
        self.offsets[partition] += 1

    def settle(self, partition: int, most: int = 1_000_000) -> None:
        """Let one partition settle a batch, and deliver what it sends on."""
        log, ledger = self.logs[partition], self.ledgers[partition]
        batch = [log.popleft() for _ in range(min(most, len(log)))]
        sent_before = len(ledger.sent)
        ledger.settle(batch)
        for command in ledger.sent[sent_before:]:
            self.append(command)

    def drain(self) -> None:
        """Settle until nothing is under way."""
        while any(self.logs):
            for partition, log in enumerate(self.logs):
                if log:
                    self.settle(partition)

    def account(self, number: str) -> Account:
        """Return an account wherever it is."""
        partition = partition_of(number, self.routing.partition_count)
        return self.ledgers[partition].accounts[number]
