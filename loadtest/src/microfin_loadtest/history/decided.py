"""Deciding a history as the workers would have: by the same decision, partition by partition."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from microfin.ledger.decision import account_numbers, decide
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Entry, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command


class Decided(msgspec.Struct, kw_only=True):
    """What a partition has decided of one piece of a history."""

    partition: int
    outcomes: list[Outcome]
    entries: list[Entry]


class Past:
    """The accounts and contra balances of a history, as far as it is decided.

    `next_offsets` are the log offsets at which each partition's history begins: below 0, so that
    they are before the log that the partition reads.
    """

    def __init__(self, routing: Routing, next_offsets: Mapping[int, int]) -> None:
        self.routing = routing
        self._next_offsets = dict(next_offsets)
        self.accounts: dict[int, dict[str, Account]] = defaultdict(dict)
        self.opened: dict[str, int] = {}
        self.contra: dict[int, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))

    def decide(self, timed: Iterable[tuple[Command, int]]) -> list[Decided]:
        """Decide requests with their times, and the credits that follow from them.

        Raises ValueError if one is not settled: then the history would not be what was planned.
        """
        waiting: dict[int, list[Received]] = defaultdict(list)
        for command, time in timed:
            self._append(waiting, command, time)
        done = []
        while waiting:
            partition, batch = waiting.popitem()
            done.append(self._settle(partition, batch, waiting))
        return done

    def _append(self, waiting: dict[int, list[Received]], command: Command, time: int) -> None:
        partition = partition_of(command.account, self.routing.partition_count)
        offset = self._next_offsets[partition]
        if offset >= 0:
            raise ValueError(f"the history of partition {partition} reaches the log")
        self._next_offsets[partition] = offset + 1
        waiting[partition].append(Received(offset, time, command))

    def _settle(
        self, partition: int, batch: list[Received], waiting: dict[int, list[Received]]
    ) -> Decided:
        existing = self.accounts[partition]
        numbers = account_numbers(batch, partition, self.routing)
        known = {number: existing[number] for number in numbers if number in existing}
        decisions = decide(partition, self.routing, known, {}, batch)
        for outcome in decisions.outcomes:
            if outcome.status == "rejected":
                raise ValueError(f"{outcome.operation} was rejected: {outcome.reason}")
        existing.update(decisions.accounts)
        self.opened.update(decisions.opened)
        for key, change in decisions.contra.items():
            self.contra[partition][key] += change
        times = {it.offset: it.time for it in batch} if decisions.outbox else {}
        for row in decisions.outbox:
            self._append(waiting, row.command, times[row.offset])
        return Decided(partition=partition, outcomes=decisions.outcomes, entries=decisions.entries)
