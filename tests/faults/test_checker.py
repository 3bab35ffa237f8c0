"""The checker finds every kind of wrong history, and nothing in a right one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from msgspec.structs import replace

from faults.checker import check
from faults.history import Answer, Asked, Attempt, History, Kind, Line, Oddity, Read
from faults.ledger import AccountState, Entry, Ledger, Leg, LegName
from microfin.ledger.routing import Routing
from microfin_tools.growth.marking import marker

USER = "u" * 32
A, B = "100000000008", "100000000016"


@dataclass
class World:
    """A right history: what is asked takes effect at once, each a second after the one before.

    A is on partition 0 and B on partition 1, so a transfer has two legs.
    """

    history: History = field(default_factory=History)
    legs: list[Leg] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    before: dict[str, AccountState] = field(
        default_factory=lambda: {A: AccountState(3, 500), B: AccountState(0, 0)}
    )
    after: dict[str, AccountState] = field(default_factory=dict)
    now: float = 0.0
    offset: int = 100

    def __post_init__(self) -> None:
        self.after = dict(self.before)

    def ask(self, kind: Kind, account: str, amount: int, to: str = "") -> Asked:
        """Ask for an operation; nobody has answered it yet."""
        number = len(self.history.asked)
        asked = Asked(f"{number:032x}", f"key {number}", kind, USER, account, to, amount)
        self.now += 1
        asked.reference = f"for {number}"
        asked.attempts = [Attempt(self.now, self.now, 0, "unknown")]
        self.history.asked.append(asked)
        return asked

    def answer(self, asked: Asked, answer: Answer) -> None:
        """Answer finally."""
        self.now += 1
        asked.acknowledged = asked.acknowledged or self.now
        asked.answered = self.now
        asked.answers = [*asked.answers, answer]

    def move(self, kind: Kind, account: str, amount: int) -> Asked:
        """Deposit or withdraw, and get this answer."""
        asked = self.ask(kind, account, amount)
        seq, balance = self.enter(asked, account, amount if kind == "deposit" else -amount)
        self.leg(asked, "settled", seq=seq, balance=balance, amount=amount)
        self.answer(asked, Answer("settled", "", account, balance, seq))
        return asked

    def transfer(self, amount: int) -> Asked:
        """Transfer from A to B, and get this answer."""
        asked = self.ask("transfer", A, amount, B)
        seq, balance = self.enter(asked, A, -amount)
        self.leg(asked, "debited", seq=seq, balance=balance, amount=amount)
        own_seq, own_balance = self.enter(asked, B, amount, "credit")
        self.leg(
            asked, "settled", leg="credit", account=B, counterparty=A,
            seq=own_seq, balance=own_balance, amount=amount,
        )  # fmt: skip
        self.answer(asked, Answer("settled", "", A, balance, seq))
        return asked

    def hold(self, amount: int) -> Asked:
        """Set money of A aside, and look at the operation: it names A's last entry."""
        asked = self.ask("hold", A, amount)
        at = self.after[A]
        change = {"held": amount, "held_change": amount, "hold_left": amount}
        self.leg(asked, "settled", seq=at.seq, balance=at.balance, amount=amount, **change)
        self.answer(asked, Answer("settled", "", A, at.balance, at.seq))
        return asked

    def refuse(self, amount: int) -> Asked:
        """Withdraw from A what it does not have, and get this answer."""
        asked = self.ask("withdraw", A, amount)
        self.leg(
            asked, "rejected", reason="insufficient_funds",
            needed=amount, available=self.after[A].balance,
        )  # fmt: skip
        self.answer(asked, Answer("rejected", "insufficient_funds"))
        return asked

    def enter(
        self, asked: Asked, account: str, amount: int, leg: LegName = "request"
    ) -> tuple[int, int]:
        """Write an entry."""
        was = self.after[account]
        state = AccountState(was.seq + 1, was.balance + amount)
        self.after[account] = state
        self.entries.append(
            Entry(
                account=account,
                seq=state.seq,
                amount=amount,
                balance_after=state.balance,
                operation=asked.operation,
                leg=leg,
                partition=int(account == B),
                reference=asked.reference,
            )
        )
        return state.seq, state.balance

    def leg(self, asked: Asked, status: str, **fields: Any) -> None:
        """Write an outcome."""
        self.offset += 1
        values: dict[str, Any] = {
            "leg": "request",
            "account": asked.account,
            "counterparty": asked.counterparty,
            **fields,
        }
        self.legs.append(
            Leg(
                operation=asked.operation,
                kind=asked.kind,
                status=cast("Any", status),
                user=USER,
                partition=int(values["account"] == B),
                offset=self.offset,
                reference=asked.reference,
                **values,
            )
        )

    @property
    def ledger(self) -> Ledger:
        """What the ledger holds."""
        return Ledger(self.legs, self.entries, self.before, self.after)

    def found(self) -> set[str]:
        """Return the kinds of what is found."""
        return {it.kind for it in check(self.history, self.ledger)}


def right() -> World:
    world = World()
    world.move("deposit", A, 300)
    world.transfer(200)
    world.refuse(10_000)
    world.move("withdraw", A, 100)
    world.move("deposit", B, 50)
    world.hold(30)
    return world


def test_nothing_is_found_in_a_right_history() -> None:
    world = right()
    world.history.reads.append(Read(A, 5, 6, 500, [Line(5, -200, 600, f"{1:032x}", "for 1")]))
    assert check(world.history, world.ledger) == []


def test_what_a_growth_marks_the_log_with_is_no_invention() -> None:
    world = right()
    command = marker(1, Routing(1, 2), Routing(2, 4))
    asked = Asked(command.operation, "", cast("Kind", "set_state"), "", command.account, "", 0)
    world.leg(asked, "rejected", reason="expired")
    assert check(world.history, world.ledger) == []
    world.leg(asked, "settled")
    assert {it.kind for it in check(world.history, world.ledger)} == {"invented"}


@pytest.mark.parametrize("where", ["legs", "entries"])
def test_another_reference_than_was_asked_for_is_found(where: str) -> None:
    world = right()
    rows = getattr(world, where)
    rows[1] = replace(rows[1], reference="")
    assert world.found() == {"invented"}


def test_a_statement_with_another_reference_is_found() -> None:
    world = right()
    entry = next(it for it in world.entries if it.account == A)
    line = Line(entry.seq, entry.amount, entry.balance_after, entry.operation, entry.reference)
    world.history.reads.append(Read(A, 0, entry.seq, None, [line]))
    assert world.found() == set()
    world.history.reads.append(Read(A, 0, entry.seq, None, [replace(line, reference="x")]))
    assert world.found() == {"wrong read"}


def test_an_ambiguous_operation_may_be_there_or_not() -> None:
    world = right()
    there = world.ask("deposit", A, 7)
    seq, balance = world.enter(there, A, 7)
    world.leg(there, "settled", seq=seq, balance=balance, amount=7)
    there.abandoned = world.ask("deposit", A, 8).abandoned = True
    assert world.found() == set()


def lose_a_deposit(world: World) -> None:
    world.answer(world.ask("deposit", A, 7), Answer("settled"))


def lose_an_accepted_deposit(world: World) -> None:
    world.ask("deposit", A, 7).acknowledged = world.now


def lose_an_entry(world: World) -> None:
    asked = world.ask("deposit", A, 7)
    world.leg(asked, "settled", seq=7, balance=507, amount=7)


def double_an_entry(world: World) -> None:
    world.enter(world.history.asked[0], A, 300)


def double_an_outcome(world: World) -> None:
    world.legs.append(world.legs[0])


def credit_and_refund(world: World) -> None:
    asked = world.transfer(10)
    seq, balance = world.enter(asked, A, 10, "refund")
    world.leg(asked, "settled", leg="refund", seq=seq, balance=balance, amount=10)


def debit_only(world: World) -> None:
    asked = world.ask("transfer", A, 10, B)
    seq, balance = world.enter(asked, A, -10)
    world.leg(asked, "debited", seq=seq, balance=balance, amount=10)


def reject_the_credit_only(world: World) -> None:
    debit_only(world)
    world.leg(
        world.history.asked[-1], "rejected", leg="credit", account=B, counterparty=A,
        reason="account_not_found",
    )  # fmt: skip


def invent_an_operation(world: World) -> None:
    world.move("deposit", A, 9)
    world.history.asked.pop()


def invent_an_entry(world: World) -> None:
    world.enter(Asked("f" * 32, "", "deposit", USER, A, "", 9), A, 9)


def settle_another_amount(world: World) -> None:
    world.move("deposit", A, 9)
    world.history.asked[-1].amount = 8


def settle_for_another_user(world: World) -> None:
    world.legs[0] = replace(world.legs[0], user="v" * 32)


def report_a_rejection_as_settled(world: World) -> None:
    world.history.asked[2].answers = [Answer("settled")]


def report_two_ends(world: World) -> None:
    world.answer(world.history.asked[2], Answer("rejected", "expired"))


def report_another_balance(world: World) -> None:
    world.history.asked[0].answers = [Answer("settled", "", A, 801, 4)]


def report_another_entry_of_a_hold(world: World) -> None:
    hold = world.hold(5)
    hold.answers = [replace(hold.answers[0], seq=1)]


def reject_in_spite_of_funds(world: World) -> None:
    world.leg(world.ask("withdraw", A, 10), "rejected", reason="insufficient_funds",
              needed=10, available=500)  # fmt: skip


def reject_by_a_balance_that_was_not(world: World) -> None:
    world.leg(world.ask("withdraw", A, 10), "rejected", reason="insufficient_funds",
              needed=10, available=5)  # fmt: skip


def reject_without_a_cause(world: World) -> None:
    world.leg(world.ask("withdraw", A, 10), "rejected", reason="account_frozen")


def reject_an_account_that_is_there(world: World) -> None:
    world.leg(world.ask("transfer", A, 10, B), "rejected", reason="account_not_found")


def reorder_two_deposits(world: World) -> None:
    late = world.move("deposit", A, 1)
    early = world.move("deposit", A, 2)
    late.attempts[0].sent = world.now + 5
    assert early.answered is not None


def reorder_an_accepted_chain(world: World) -> None:
    """The second was sent after the first's 202, and took effect before it."""
    second = world.ask("deposit", A, 2)
    first = world.ask("deposit", A, 1)
    first.attempts[0].sent, first.acknowledged, second.attempts[0].sent = 90.0, 91.0, 92.0
    for asked in (second, first):
        seq, balance = world.enter(asked, A, asked.amount)
        world.leg(asked, "settled", seq=seq, balance=balance, amount=asked.amount)


def reorder_a_rejection(world: World) -> None:
    """A withdrawal was rejected for want of a deposit that had been acknowledged before it."""
    rejected = world.refuse(900)
    deposit = world.move("deposit", A, 1_000)
    deposit.acknowledged, rejected.attempts[0].sent = 90.0, 91.0
    rejected.acknowledged = rejected.answered = 92.0


def reorder_a_credit(world: World) -> None:
    """B withdrew after the transfer to B was answered, and before it arrived."""
    world.move("deposit", B, 5)
    transfer = world.transfer(5)
    transfer.attempts[0].sent, transfer.answered, transfer.acknowledged = 0.0, 0.5, 0.2
    world.history.asked[-2].attempts[0].sent = 0.7


def skip_a_number(world: World) -> None:
    world.after[A] = AccountState(world.after[A].seq + 1, world.after[A].balance)
    world.move("deposit", A, 1)


def change_a_balance(world: World) -> None:
    world.after[A] = AccountState(world.after[A].seq, world.after[A].balance + 1)


def go_below_zero(world: World) -> None:
    world.move("withdraw", B, 251)


def read_a_balance_that_was_not(world: World) -> None:
    world.history.reads.append(Read(A, 0, 4, 801))


def read_what_was_before_an_answer(world: World) -> None:
    world.history.reads.append(Read(A, 6, 5))


def read_another_line(world: World) -> None:
    world.history.reads.append(Read(A, 0, 6, None, [Line(5, -201, 600, f"{1:032x}", "for 1")]))


def leave_without_an_end(world: World) -> None:
    world.ask("deposit", A, 7)


def answer_oddly(world: World) -> None:
    world.history.oddities.append(Oddity(1.0, "", 500, "internal"))


PLANTED: list[tuple[Callable[[World], None], str]] = [
    (lose_a_deposit, "lost"),
    (lose_an_accepted_deposit, "lost"),
    (lose_an_entry, "lost"),
    (double_an_entry, "doubled"),
    (double_an_outcome, "doubled"),
    (credit_and_refund, "doubled"),
    (debit_only, "half"),
    (reject_the_credit_only, "half"),
    (invent_an_operation, "invented"),
    (invent_an_entry, "invented"),
    (settle_another_amount, "invented"),
    (settle_for_another_user, "invented"),
    (report_a_rejection_as_settled, "contradicted"),
    (report_two_ends, "contradicted"),
    (report_another_balance, "contradicted"),
    (report_another_entry_of_a_hold, "contradicted"),
    (reject_in_spite_of_funds, "unjustified"),
    (reject_by_a_balance_that_was_not, "unjustified"),
    (reject_without_a_cause, "unjustified"),
    (reject_an_account_that_is_there, "unjustified"),
    (reorder_two_deposits, "reordered"),
    (reorder_an_accepted_chain, "reordered"),
    (reorder_a_rejection, "reordered"),
    (reorder_a_credit, "reordered"),
    (skip_a_number, "wrong balance"),
    (change_a_balance, "wrong balance"),
    (go_below_zero, "wrong balance"),
    (read_a_balance_that_was_not, "wrong read"),
    (read_what_was_before_an_answer, "wrong read"),
    (read_another_line, "wrong read"),
    (leave_without_an_end, "stuck"),
    (answer_oddly, "odd answer"),
]


@pytest.mark.parametrize(("plant", "kind"), PLANTED, ids=lambda it: getattr(it, "__name__", it))
def test_what_was_planted_is_found(plant: Callable[[World], None], kind: str) -> None:
    world = right()
    assert world.found() == set()
    plant(world)
    assert kind in world.found()


def test_an_account_that_moves_keeps_its_order() -> None:
    """After a growth A is on partition 2, whose offsets are lower than those it had before."""
    world = right()
    world.offset = 0
    asked = world.move("deposit", A, 5)
    world.entries[-1] = replace(world.entries[-1], partition=2)
    world.legs[-1] = replace(world.legs[-1], partition=2)
    world.refuse(9_999)
    world.legs[-1] = replace(world.legs[-1], partition=2)
    assert check(world.history, world.ledger) == []
    assert asked.answered is not None
