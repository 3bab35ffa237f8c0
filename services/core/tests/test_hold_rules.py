"""The rules of holds, one by one."""

from typing import Any

import pytest

from microfin.ledger.columns import MOMENT_LATEST
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Received
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command, expiry_of
from support.drawn_commands import ANNA, BERT, NUMBERS, operation, some_money
from support.memory_ledger import Cluster

DAY = 24 * 3_600_000


class Bank:
    """Three accounts of Anna with 100 euros each, and what is asked of them."""

    def __init__(self, partitions: int = 1) -> None:
        self.cluster = Cluster(partitions)
        for command in some_money(3):
            self.cluster.append(command)
        self.cluster.drain()
        self.asked = 0

    def ask(self, kind: str, **fields: Any) -> str:
        """Append a request; return its operation."""
        self.asked += 1
        whole = {
            "leg": "request",
            "operation": operation(self.asked),
            "account": NUMBERS[0],
            "user": ANNA,
            "reply": f"api/{self.asked}",
            **fields,
        }
        self.cluster.append(Command(kind=kind, **whole))
        return str(whole["operation"])

    def settle(self, kind: str, **fields: Any) -> str:
        """Append a request and decide it; return its operation."""
        asked = self.ask(kind, **fields)
        self.cluster.drain()
        return asked

    def hold(self, amount: str = "40", lifetime: int = DAY, **fields: Any) -> str:
        return self.settle("hold", amount=amount, lifetime=lifetime, **fields)

    def expire(self, hold: str, **fields: Any) -> None:
        self.settle("expire", operation=expiry_of(hold), hold=hold, user="", reply="", **fields)

    def outcome(self, asked: str, leg: str = "request") -> Outcome:
        [found] = [
            it.outcomes[(asked, leg)] for it in self.cluster.ledgers if (asked, leg) in it.outcomes
        ]
        return found

    def money(self, number: str = NUMBERS[0]) -> tuple[int, int]:
        """Return the balance and what is held of it."""
        account = self.cluster.account(number)
        return account.balance, account.held

    @property
    def holds(self) -> dict[str, int]:
        """What open holds have left."""
        return {it: hold.left for one in self.cluster.ledgers for it, hold in one.holds.items()}


def rejected(bank: Bank, asked: str) -> tuple[str, int | None, int | None]:
    outcome = bank.outcome(asked)
    assert outcome.status == "rejected"
    return outcome.reason, outcome.needed, outcome.available


def test_a_hold_sets_money_aside_and_moves_nothing() -> None:
    bank = Bank()
    hold = bank.hold("40")
    assert bank.money() == (10_000, 4_000)
    assert bank.holds == {hold: 4_000}
    outcome = bank.outcome(hold)
    assert (outcome.balance, outcome.held, outcome.hold_left) == (10_000, 4_000, 4_000)
    assert outcome.ends == outcome.time + DAY
    assert not [it for it in bank.cluster.ledgers[0].entries if it.operation == hold]


@pytest.mark.parametrize("kind", ["withdraw", "transfer", "hold"])
def test_what_is_held_cannot_be_spent(kind: str) -> None:
    bank = Bank()
    bank.hold("40")
    more = {"transfer": {"counterparty": NUMBERS[1]}, "hold": {"lifetime": DAY}}.get(kind, {})
    too_much = bank.settle(kind, amount="60.01", **more)
    assert rejected(bank, too_much) == ("insufficient_funds", 6_001, 6_000)
    assert bank.outcome(too_much).held == 4_000
    assert bank.outcome(bank.settle(kind, amount="60", **more)).status == "settled"


@pytest.mark.parametrize("receiver", ["", NUMBERS[1]])
def test_a_capture_pays_from_what_is_held(receiver: str) -> None:
    bank = Bank()
    hold = bank.hold("40", counterparty=receiver)
    first = bank.settle("capture", hold=hold, amount="10")
    assert (bank.money(), bank.holds) == ((9_000, 3_000), {hold: 3_000})
    rest = bank.settle("capture", hold=hold)
    assert (bank.money(), bank.holds) == ((6_000, 0), {})
    assert [bank.outcome(it).hold_left for it in (first, rest)] == [3_000, 0]
    assert [bank.outcome(it).amount for it in (first, rest)] == [1_000, 3_000]
    assert bank.money(NUMBERS[1])[0] == (14_000 if receiver else 10_000)


def test_the_last_capture_releases_the_rest() -> None:
    bank = Bank()
    hold = bank.hold("40")
    last = bank.settle("capture", hold=hold, amount="15", last=True)
    assert (bank.money(), bank.holds) == ((8_500, 0), {})
    outcome = bank.outcome(last)
    assert (outcome.amount, outcome.held_change, outcome.hold_left) == (1_500, -4_000, 0)
    answer = bank.cluster.ledgers[0].answers[-1].operation
    assert (answer.balance, answer.held, answer.released) == (8_500, 0, 2_500)


def test_no_more_is_captured_than_the_hold_has_left() -> None:
    bank = Bank()
    hold = bank.hold("40")
    bank.settle("capture", hold=hold, amount="30")
    assert rejected(bank, bank.settle("capture", hold=hold, amount="10.01")) == (
        "hold_exceeded",
        1_001,
        1_000,
    )
    assert bank.holds == {hold: 1_000}


def test_a_release_gives_it_back() -> None:
    bank = Bank()
    hold = bank.hold("40")
    bank.settle("capture", hold=hold, amount="10")
    released = bank.settle("release", hold=hold)
    assert (bank.money(), bank.holds) == ((9_000, 0), {})
    assert bank.cluster.ledgers[0].answers[-1].operation.released == 3_000
    assert bank.outcome(released).amount is None


@pytest.mark.parametrize("kind", ["capture", "release"])
@pytest.mark.parametrize("how", ["captured", "released", "expired"])
def test_what_has_ended_stays_so(kind: str, how: str) -> None:
    bank = Bank()
    hold = bank.hold("40", lifetime=3)
    if how == "captured":
        bank.settle("capture", hold=hold)
    elif how == "released":
        bank.settle("release", hold=hold)
    else:
        bank.cluster.time += 3
        bank.expire(hold)
    before = bank.money()
    assert rejected(bank, bank.settle(kind, hold=hold))[0] == "hold_ended"
    bank.cluster.time += 10
    bank.expire(hold)
    assert (bank.money(), bank.holds) == (before, {})


@pytest.mark.parametrize("kind", ["capture", "release"])
def test_a_hold_of_another_account_is_none(kind: str) -> None:
    bank = Bank()
    hold = bank.hold("40")
    for fields in (
        {"hold": operation(999)},
        {"hold": hold, "account": NUMBERS[1]},
        {"hold": operation(1_000)},  # an operation that made no hold
    ):
        assert rejected(bank, bank.settle(kind, **fields))[0] == "hold_not_found"
    assert rejected(bank, bank.settle(kind, hold=hold, user=BERT))[0] == "not_owner"
    assert bank.holds == {hold: 4_000}


def test_a_hold_ends_at_its_time_and_not_before() -> None:
    bank = Bank()
    hold = bank.hold("40", lifetime=100)
    ends = bank.outcome(hold).ends
    assert ends is not None
    bank.cluster.time = ends - 2
    bank.expire(hold)  # a millisecond too early
    assert (bank.money(), bank.holds) == ((10_000, 4_000), {hold: 4_000})
    assert rejected(bank, bank.settle("capture", hold=hold))[0] == "hold_ended"
    assert bank.money() == (10_000, 4_000)  # until a worker has ended it
    bank.cluster.time = ends - 1
    bank.expire(hold)  # at this very millisecond
    assert (bank.money(), bank.holds) == ((10_000, 0), {})
    outcome = bank.outcome(expiry_of(hold))
    assert (outcome.status, outcome.held_change, outcome.hold_left) == ("settled", -4_000, 0)


def test_the_end_of_a_hold_is_a_time_that_can_be_stored() -> None:
    """Whatever time the broker reports."""
    bank = Bank()
    bank.cluster.time = MOMENT_LATEST - 1
    hold = bank.hold("40")
    assert bank.outcome(hold).ends == MOMENT_LATEST


@pytest.mark.parametrize("first", ["capture", "expire"])
def test_a_capture_that_races_with_the_end_gets_one_of_the_two(first: str) -> None:
    """In the order of the log, although both are in one batch."""
    bank = Bank()
    hold = bank.hold("40", lifetime=100)
    bank.cluster.time += 97 if first == "capture" else 100
    end = {"operation": expiry_of(hold), "hold": hold, "user": "", "reply": ""}
    if first == "capture":
        captured = bank.ask("capture", hold=hold)
        bank.cluster.time += 10
        bank.ask("expire", **end)
    else:
        bank.ask("expire", **end)
        captured = bank.ask("capture", hold=hold)
    bank.cluster.drain()
    won = first == "capture"
    assert bank.outcome(captured).reason == ("" if won else "hold_ended")
    assert bank.money() == ((6_000 if won else 10_000), 0)
    assert ((expiry_of(hold), "request") in bank.cluster.ledgers[0].outcomes) != won


def test_a_frozen_account_releases_and_neither_holds_nor_captures() -> None:
    bank = Bank()
    hold = bank.hold("40")
    bank.settle("set_state", state="frozen", user="")
    assert rejected(bank, bank.hold("1"))[0] == "account_frozen"
    assert rejected(bank, bank.settle("capture", hold=hold))[0] == "account_frozen"
    assert bank.outcome(bank.settle("release", hold=hold)).status == "settled"
    assert bank.money() == (10_000, 0)


def test_the_hold_of_a_frozen_account_ends_at_its_time() -> None:
    bank = Bank()
    hold = bank.hold("40", lifetime=5)
    bank.settle("set_state", state="frozen", user="")
    bank.cluster.time += 5
    bank.expire(hold)
    assert bank.money() == (10_000, 0)


def test_an_account_with_holds_cannot_be_closed() -> None:
    bank = Bank()
    bank.hold("100")
    assert rejected(bank, bank.settle("set_state", state="closed", user=""))[0] == (
        "balance_not_zero"
    )


def test_a_receiver_that_cannot_take_it_leaves_the_hold_as_it_is() -> None:
    bank = Bank()
    hold = bank.hold("40", counterparty=NUMBERS[1])
    bank.settle("set_state", account=NUMBERS[1], state="frozen", user="")
    assert rejected(bank, bank.settle("capture", hold=hold))[0] == "account_frozen"
    assert (bank.money(), bank.holds) == ((10_000, 4_000), {hold: 4_000})


def test_nobody_holds_for_the_same_account() -> None:
    bank = Bank()
    assert rejected(bank, bank.hold("1", counterparty=NUMBERS[0]))[0] == "same_account"


def apart(partitions: int) -> str:
    """Return one of the accounts that is on another partition than the first."""
    home = partition_of(NUMBERS[0], partitions)
    return next(it for it in NUMBERS[1:3] if partition_of(it, partitions) != home)


def partitions_apart() -> int:
    """Return a number of partitions for which the accounts are not all on one."""
    return next(
        count
        for count in range(2, 9)
        if len({partition_of(it, count) for it in NUMBERS[:3]}) > 1
        and any(partition_of(it, count) != partition_of(NUMBERS[0], count) for it in NUMBERS[1:3])
    )


def test_a_captured_transfer_arrives_on_another_partition() -> None:
    count = partitions_apart()
    receiver, bank = apart(count), Bank(count)
    hold = bank.hold("40", counterparty=receiver)
    captured = bank.settle("capture", hold=hold, amount="15", last=True)
    assert bank.outcome(captured).status == "debited"
    assert bank.outcome(captured, "credit").kind == "capture"
    assert (bank.money(), bank.money(receiver)) == ((8_500, 0), (11_500, 0))
    [answer] = [
        it.operation for one in bank.cluster.ledgers for it in one.answers
        if it.operation.operation == captured
    ]  # fmt: skip
    shown = (answer.status, answer.balance, answer.hold, answer.hold_left, answer.released)
    assert shown == ("settled", 8_500, hold, 0, 2_500)


def test_a_captured_transfer_that_comes_back_is_available() -> None:
    count = partitions_apart()
    receiver, bank = apart(count), Bank(count)
    hold = bank.hold("40", counterparty=receiver)
    bank.settle("set_state", account=receiver, state="frozen", user="")
    captured = bank.settle("capture", hold=hold)
    assert bank.outcome(captured, "refund").status == "settled"
    assert (bank.money(), bank.holds) == ((10_000, 0), {})


def test_a_repeat_of_an_end_that_came_too_early_has_its_effect() -> None:
    bank = Bank()
    hold = bank.hold("40", lifetime=50)
    bank.expire(hold)
    bank.expire(hold)
    assert bank.money() == (10_000, 4_000)
    bank.cluster.time += 50
    bank.expire(hold)
    bank.expire(hold)
    assert bank.money() == (10_000, 0)


def test_an_end_on_a_wrong_partition_is_passed_on_with_its_first_time() -> None:
    bank = Bank(2)
    hold = bank.hold("40", lifetime=50)
    wrong = 1 - partition_of(NUMBERS[0], 2)
    command = Command(
        kind="expire", leg="request", operation=expiry_of(hold), account=NUMBERS[0], hold=hold
    )
    bank.cluster.ledgers[wrong].settle([Received(70, 5, command)])
    assert bank.cluster.ledgers[wrong].sent[-1].appended == 5
