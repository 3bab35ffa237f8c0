"""What a recovery does about a transfer whose legs do not add up."""

import itertools
from typing import Any

import pytest

from microfin.ledger.decision import decide
from microfin.ledger.operation import Leg, Outcome
from microfin.ledger.records import Account, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command, body_hash
from microfin_tools.recovery import legs
from microfin_tools.recovery.legs import unsettled

NUMBERS = ["505945916219", "487746995884", "767101075681", "867637376197", "131997486694"]
ROUTING = Routing(1, 2)
USER = "a" * 32
OPERATION = "0123456789abcdef0123456789abcdef"


def on(partition: int) -> str:
    return next(it for it in NUMBERS if partition_of(it, 2) == partition)


SENDER, RECEIVER = on(0), on(1)


def decided(command: Command, *, state: Any = "open") -> tuple[Outcome, Command | None]:
    """Return the outcome of a command by the real decision core, and the command it sends on."""
    number = command.account
    account = Account(number=number, owner=USER, currency="EUR", balance=5_000, state=state)
    decisions = decide(
        partition_of(number, 2), ROUTING, {number: account}, {}, [Received(7, 1_000, command)]
    )
    sent = decisions.outbox[0].command if decisions.outbox else None
    return decisions.outcomes[0], sent


def transfer(*, receiver_state: Any = "open") -> tuple[dict[Leg, Outcome], dict[Leg, Command]]:
    """Return all outcomes and commands of a transfer of 12.50."""
    command: Command | None = Command(
        kind="transfer", leg="request", operation=OPERATION, account=SENDER, user=USER,
        counterparty=RECEIVER, amount="12.5", generation=1, deadline=60_000, reply="api/1",
    )  # fmt: skip
    outcomes: dict[Leg, Outcome] = {}
    commands: dict[Leg, Command] = {}
    while command is not None:
        commands[command.leg] = command
        state = receiver_state if command.leg == "credit" else "open"
        outcomes[command.leg], command = decided(command, state=state)
    return outcomes, commands


@pytest.mark.parametrize("receiver_state", ["open", "frozen"])
def test_a_complete_transfer_is_left_alone(receiver_state: str) -> None:
    outcomes, _ = transfer(receiver_state=receiver_state)
    assert unsettled(outcomes.values()) is None


@pytest.mark.parametrize(
    ("receiver_state", "known", "leg", "what"),
    [
        ("open", {"request"}, "credit", legs.OWED_CREDIT),
        ("frozen", {"request", "credit"}, "refund", legs.OWED_REFUND),
        ("open", {"credit"}, "request", legs.LOST_DEBIT),
        ("frozen", {"credit", "refund"}, "request", legs.LOST_DEBIT),
    ],
)
def test_what_is_sent_again_is_what_was_sent(
    receiver_state: str, known: set[Leg], leg: Leg, what: str
) -> None:
    """The same body, so that its first copy, if it is there after all, is recognised."""
    outcomes, commands = transfer(receiver_state=receiver_state)
    found = unsettled(outcomes[it] for it in known)
    assert found is not None
    assert found.transfer.what == what
    assert (found.transfer.sender, found.transfer.receiver) == (SENDER, RECEIVER)
    assert (found.transfer.amount, found.transfer.currency) == ("12.5", "EUR")
    assert found.command is not None
    assert found.command.leg == leg
    assert found.command.deadline == 0
    first = commands[leg]
    assert body_hash(found.command) == body_hash(first)
    for name in ("account", "counterparty", "user", "sender_seq", "sender_balance", "reason"):
        assert getattr(found.command, name) == getattr(first, name)


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({"refund"}, legs.LOST_REJECTION),
        ({"request", "refund"}, legs.LOST_REJECTION),
    ],
)
def test_what_might_pay_twice_is_only_listed(known: set[Leg], what: str) -> None:
    outcomes, _ = transfer(receiver_state="frozen")
    found = unsettled(outcomes[it] for it in known)
    assert found is not None
    assert (found.command, found.transfer.what) == (None, what)


def test_nothing_is_ever_sent_for_what_is_contradictory() -> None:
    """A debit refused the second time, and a transfer both credited and refunded."""
    settled, _ = transfer()
    refunded, _ = transfer(receiver_state="frozen")
    refused, _ = decided(
        Command(kind="transfer", leg="request", operation=OPERATION, account=SENDER, user=USER,
                counterparty=RECEIVER, amount="99999")
    )  # fmt: skip
    for contradiction, what in (
        ([refused, settled["credit"]], legs.REFUSED_DEBIT),
        ([refused, refunded["refund"]], legs.REFUSED_DEBIT),
        ([settled["request"], settled["credit"], refunded["refund"]], legs.BOTH),
    ):
        for order in itertools.permutations(contradiction):
            found = unsettled(order)
            assert found is not None
            assert (found.command, found.transfer.what) == (None, what)
