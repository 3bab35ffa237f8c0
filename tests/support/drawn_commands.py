"""Commands and amounts that Hypothesis draws for tests of deciding."""

from decimal import Decimal

from hypothesis import strategies as st

from microfin.ledger.account_number import check_digit
from microfin.ledger.money import canonical_amount
from microfin.ledger.wire import Command, expiry_of
from support.naive_model import DECIMALS

ANNA, BERT = "a" * 32, "b" * 32


def number(index: int) -> str:
    body = str(10**10 + index)
    return body + check_digit(body)


def operation(index: int) -> str:
    return f"{index:032x}"


NUMBERS = [number(index) for index in range(6)]
CURRENCIES = [*DECIMALS, "XXX"]
AMOUNTS = ["1", "5", "0.5", "0.25", "0.001", "12.34", "100", "9999999999999", "10000000000000"]
AMOUNTS += ["9999999999999999", "9999999999999999.9999", "1000000000000000"]
READABLE_AMOUNTS = (
    st.integers(1, 10**20 - 1) | st.integers(1, 20).map(lambda digits: 10**digits - 1)
).map(lambda tenth_thousandths: canonical_amount(f"{Decimal(tenth_thousandths).scaleb(-4):f}"))
"""Amounts that the API accepts, as it sends them."""
REFERENCES = ["", "", "Invoice 117", "Übertrag\\'\"", "=1+1"]
METADATA: list[dict[str, str] | None] = [None, None, {"order": "A-17"}, {"b": "", "a": "\\"}]


KINDS = ["open", "deposit", "deposit", "withdraw", "transfer", "transfer", "set_state"]
KINDS += ["hold", "hold", "capture", "release", "expire"]
"""The kinds of drawn requests; the more often one is here, the more often it is drawn."""


def some_money(accounts: int) -> list[Command]:
    """Open accounts of Anna and let her have 100 euros in each, so that more is possible."""
    commands: list[Command] = []
    for index, account in enumerate(NUMBERS[:accounts]):
        fields = {"account": account, "user": ANNA, "leg": "request"}
        first, second = operation(1_000 + index), operation(2_000 + index)
        commands.append(Command(kind="open", operation=first, currency="EUR", **fields))
        commands.append(Command(kind="deposit", operation=second, amount="100", **fields))
    return commands


@st.composite
def requests(draw: st.DrawFn) -> list[Command]:  # noqa: C901 - one kind after another
    """A log of requests over few accounts, so that they meet; some are repeats."""
    commands = some_money(draw(st.sampled_from([0, 1, 2, 3])))
    opened = {it.account for it in commands}
    for index in range(draw(st.integers(1, 40))):
        if commands and draw(st.integers(0, 9)) == 0:
            commands.append(draw(st.sampled_from(commands)))
            continue
        kind = draw(st.sampled_from(KINDS))
        account = draw(st.sampled_from(NUMBERS + NUMBERS[:2] * 3))
        fields: dict[str, object] = {}
        if kind in ("capture", "release", "expire"):
            command = draw(on_holds(kind, index, commands))
            if command is not None:
                commands.append(command)
            continue
        if kind == "open":
            if account in opened:  # who opens a taken number is a test of its own
                continue
            opened.add(account)
            fields = {"currency": draw(st.sampled_from(CURRENCIES))}
        elif kind == "set_state":
            fields = {"state": draw(st.sampled_from(["open", "frozen", "closed"]))}
        else:
            fields = {"amount": draw(st.sampled_from(AMOUNTS))}
        if kind == "transfer":
            fields["counterparty"] = draw(st.sampled_from(NUMBERS))
        if kind == "hold":
            fields["counterparty"] = draw(st.sampled_from(["", *NUMBERS]))
            fields["lifetime"] = draw(st.sampled_from([3, 10, 1_000_000]))
        if kind not in ("open", "set_state"):
            fields["reference"] = draw(st.sampled_from(REFERENCES))
            fields["metadata"] = draw(st.sampled_from(METADATA))
        commands.append(
            Command(
                kind=kind,
                leg="request",
                operation=operation(index),
                account=account,
                user=draw(st.sampled_from([ANNA, ANNA, ANNA, BERT])),
                reply=f"api/{index}",
                **fields,
            )
        )
    return commands


@st.composite
def on_holds(draw: st.DrawFn, kind: str, index: int, before: list[Command]) -> Command | None:
    """What takes from a hold of before, or ends it; sometimes one of another account, or none."""
    holds = [it for it in before if it.kind == "hold"]
    if not holds:
        return None
    hold = draw(st.sampled_from(holds))
    account = draw(st.sampled_from([hold.account] * 5 + NUMBERS[:1]))
    if kind == "expire":
        return Command(
            kind="expire",
            leg="request",
            operation=expiry_of(hold.operation),
            account=account,
            hold=hold.operation,
        )
    fields: dict[str, object] = {"user": draw(st.sampled_from([hold.user] * 5 + [BERT]))}
    if kind == "capture":
        fields |= {
            "amount": draw(st.sampled_from(["", hold.amount, "1", "0.5", "0.25", *AMOUNTS[:6]])),
            "last": draw(st.booleans()),
        }
    made = draw(st.sampled_from([hold.operation] * 9 + [operation(10**6)]))
    return Command(
        kind=kind,
        leg="request",
        operation=operation(index),
        account=account,
        hold=made,
        reply=f"api/{index}",
        reference=draw(st.sampled_from(REFERENCES)),
        **fields,
    )
