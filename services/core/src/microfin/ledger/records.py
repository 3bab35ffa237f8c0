"""What a decision reads and writes: accounts, entries, records of the log, and decisions."""

import msgspec

from microfin.ledger.columns import Bigint, Moment
from microfin.ledger.operation import AccountState, Contra, Kind, Leg, Operation, Outcome
from microfin.ledger.wire import Command, Identity

LegKey = tuple[str, Leg]
"""The (operation, leg) of an outcome: there is at most one outcome for each."""


class Account(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An account as the decision sees it.

    `balance` is minor units, and so is `held`, the part of it that holds have set aside;
    `entry_time` is the time of the last entry, in milliseconds since the Unix epoch.
    """

    number: str
    owner: str
    currency: str
    balance: Bigint = 0
    state: AccountState = "open"
    seq: Bigint = 0
    version: Bigint = 1
    entry_time: Moment = 0
    held: Bigint = 0

    @property
    def available(self) -> int:
        """What may be spent: the balance without what is held."""
        return self.balance - self.held


class Hold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Money of `account` that is set aside, until it is captured, released, or its time ends.

    `operation` made it. `receiver` is the account that a capture pays, empty for cash. `amount` and
    `left`, what is left of it, are minor units; with nothing left it has ended. `ends` is
    milliseconds since the Unix epoch.
    """

    operation: str
    account: str
    receiver: str
    amount: Bigint
    left: Bigint
    ends: Moment


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One immutable line of an account's statement."""

    account: str
    seq: Bigint
    amount: Bigint
    balance_after: Bigint
    operation: str
    leg: Leg
    kind: Kind
    contra: Contra
    counterparty: str
    time: Moment
    reference: str = ""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A record of the log with the command that it carries, or the reason why it carries none.

    `time` is the broker's append time in milliseconds since the Unix epoch. `fault` is set for a
    record that goes to quarantine; then `command` is None, and `identity` is what is known of it.
    """

    offset: Bigint
    time: Moment
    command: Command | None
    fault: str = ""
    identity: Identity | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the waiting client receives. `refused` marks a known id that came with another body."""

    reply: str
    operation: Operation
    replayed: bool = False
    refused: bool = False


class OutboxRow(msgspec.Struct, frozen=True, gc=False):
    """A command that this batch sends on; `(offset, step)` is its place in the outbox."""

    offset: int
    step: int
    command: Command


class Decisions(msgspec.Struct, kw_only=True):
    """All that one batch changes, and the answers it gives, in offset order.

    `opened` maps those of `accounts` that are new to the time of their opening, in milliseconds
    since the Unix epoch. `holds` maps the operations that made them to holds as they are now.
    """

    outcomes: list[Outcome]
    entries: list[Entry]
    accounts: dict[str, Account]
    opened: dict[str, int]
    contra: dict[tuple[Contra, str], int]
    outbox: list[OutboxRow]
    quarantined: list[Received]
    answers: list[Answer]
    holds: dict[str, Hold]

    @classmethod
    def none(cls) -> "Decisions":
        """Return the decisions of a batch without commands, to be added to."""
        return cls(
            outcomes=[],
            entries=[],
            accounts={},
            opened={},
            contra={},
            outbox=[],
            quarantined=[],
            answers=[],
            holds={},
        )
