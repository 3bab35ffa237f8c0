"""What the model clients asked for and what was answered: the history of one round.

Times are seconds of one monotonic clock, the clients'. Amounts are minor units.
"""

from typing import Literal

import msgspec

Kind = Literal["open", "deposit", "withdraw", "transfer", "hold", "capture", "release"]
Result = Literal["final", "accepted", "refused", "unknown"]
"""How one request ended. `refused`: nothing was done; `unknown`: nobody knows."""


class Attempt(msgspec.Struct, array_like=True):
    """One request for an operation. `status` is HTTP's, 0 where no answer came."""

    sent: float
    ended: float
    status: int
    result: Result
    code: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A final answer, or what an operation's Location said in the end."""

    status: Literal["settled", "rejected", "refunded"]
    reason: str = ""
    account: str = ""
    balance: int | None = None
    seq: int | None = None


class Asked(msgspec.Struct, omit_defaults=True):
    """One operation that a client asked for, and all answers about it.

    `account` is the one that the command is sent to; empty for `open`. `asynchronous`: the client
    asked for 202. `acknowledged` is when the first 202 or final answer came, `answered` when the
    first final answer came. `abandoned`: the client gave it up while it was ambiguous. `hold` is
    the operation that made the hold which this one is about; `lifetime` is a new one's, in seconds.
    """

    operation: str
    key: str
    kind: Kind
    user: str
    account: str = ""
    counterparty: str = ""
    amount: int = 0
    asynchronous: bool = False
    attempts: list[Attempt] = []
    acknowledged: float | None = None
    answered: float | None = None
    answers: list[Answer] = []
    abandoned: bool = False
    reference: str = ""
    hold: str = ""
    lifetime: int = 0

    @property
    def first_sent(self) -> float:
        """When the operation was asked for first."""
        return self.attempts[0].sent if self.attempts else 0.0


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line of a statement as a client read it."""

    seq: int
    amount: int
    balance_after: int
    operation: str
    reference: str = ""


class Read(msgspec.Struct, frozen=True):
    """A client looked at its account.

    `at_least` is the highest entry that had been acknowledged to this client when it began to read;
    what it sees, a statement or a balance, must not be older.
    """

    account: str
    at_least: int
    seq: int
    balance: int | None = None
    lines: list[Line] = []


class Oddity(msgspec.Struct, frozen=True):
    """An answer that no client should ever get."""

    at: float
    operation: str
    status: int
    body: str


class History(msgspec.Struct):
    """All of one round. `unresolved` are operations of earlier rounds that were given up."""

    asked: list[Asked] = []
    reads: list[Read] = []
    oddities: list[Oddity] = []
    unresolved: list[Asked] = []
