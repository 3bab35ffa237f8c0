"""Commands and amounts that Hypothesis draws for tests of deciding."""

from decimal import Decimal

from hypothesis import strategies as st

from microfin.ledger.account_number import check_digit
from microfin.ledger.money import canonical_amount
from microfin.ledger.wire import Command
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


@st.composite
def requests(draw: st.DrawFn) -> list[Command]:
    """A log of requests over few accounts, so that they meet; some are repeats."""
    commands: list[Command] = []
    for index in range(draw(st.integers(1, 40))):
        if commands and draw(st.integers(0, 9)) == 0:
            commands.append(draw(st.sampled_from(commands)))
            continue
        kind = draw(
            st.sampled_from(
                ["open", "deposit", "deposit", "withdraw", "transfer", "transfer", "set_state"]
            )
        )
        account = draw(st.sampled_from(NUMBERS))
        fields: dict[str, object] = {}
        if kind == "open":
            opened = {command.account for command in commands if command.kind == "open"}
            if account in opened:  # who opens a taken number is a test of its own
                continue
            fields = {"currency": draw(st.sampled_from(CURRENCIES))}
        elif kind == "set_state":
            fields = {"state": draw(st.sampled_from(["open", "frozen", "closed"]))}
        else:
            fields = {"amount": draw(st.sampled_from(AMOUNTS))}
        if kind == "transfer":
            fields["counterparty"] = draw(st.sampled_from(NUMBERS))
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
