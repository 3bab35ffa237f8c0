"""A history on a PostgresLedger: first at random, then operations that a test knows by name."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from microfin.ledger.operation import AccountState
from microfin.ledger.wire import Command, body_hash
from support.postgres_ledger import PostgresLedger

ANNA, BERT = "a" * 32, "b" * 32
PARTITIONS = 4
NOTES: list[dict[str, Any]] = [
    {},
    {},
    {"reference": "=1+1"},
    {"metadata": {"order": "A-17"}},
    {"reference": "Miete 'März' \\.\\x01", "metadata": {"ü": "\\", "\U0001f600": '"', "b": ""}},
]
"""What an operation may have beside its amount; some of it is special in SQL, COPY, JSON or CSV."""

STATES: list[AccountState] = ["open", "open", "open", "frozen", "closed"]


class History(msgspec.Struct):
    """Names of a test: accounts by person, operation ids by what they do.

    Anna, Carl, Emil and `idle`, which nobody touches, are on partition 0, Bert and Dora (frozen) on
    partition 1, which is another shard where there are two. Fritz, on partition 0, has an open hold
    from which `captured` took some, and `released` ended another one. `holds` are all, with account
    and user. `bare_credit` is the body's hash that
    the credit of `crossed` would have without its reference, in hexadecimal.
    """

    owners: dict[str, str]
    idle: str = ""
    anna: str = ""
    carl: str = ""
    emil: str = ""
    bert: str = ""
    dora: str = ""
    fritz: str = ""
    hold: str = ""
    captured: str = ""
    released: str = ""
    deposit: str = ""
    inside: str = ""
    crossed: str = ""
    refunded: str = ""
    rejected: str = ""
    bare_credit: str = ""
    holds: list[tuple[str, str, str]] = []


async def begin(ledger: PostgresLedger, random: Random) -> History:
    """Open accounts, and let money move."""
    owners = {
        ledger.open(user, currency, partition): user
        for partition in range(PARTITIONS)
        for user in (ANNA, BERT)
        for currency in ("EUR", "EUR", "USD")
    }
    await ledger.drain()
    history = History(owners, idle=ledger.open(ANNA, "EUR", 0))
    for account, user in owners.items():
        ledger.request("deposit", account, user=user, amount="1000")
    await move_money(ledger, history, random, 200)
    await ledger.drain()
    return history


async def move_money(
    ledger: PostgresLedger, history: History, random: Random, requests: int
) -> None:
    """Ask for operations at random, rejected ones too, and settle here and there."""
    for _ in range(requests):
        account, other = random.choices(list(history.owners), k=2)
        user = history.owners[account] if random.random() < 0.9 else random.choice((ANNA, BERT))
        amount = str(random.randint(1, 300))
        notes = random.choice(NOTES)
        match random.randint(0, 15):
            case 0 | 1:
                ledger.request("deposit", account, user=user, amount=amount, **notes)
            case 2 | 3:
                ledger.request("withdraw", account, user=user, amount=amount, **notes)
            case 4:
                state = random.choice(STATES)
                ledger.request("set_state", account, state=state)
            case 5:
                partition = random.randrange(PARTITIONS)
                ledger.append_to(partition, None)
            case 6:
                to = random.choice((other, other, ""))
                lifetime = random.choice((20, 10**9))
                hold = ledger.request(
                    "hold", account, user=user, to=to, amount=amount, lifetime=lifetime, **notes
                )
                history.holds.append((hold, account, user))
            case 7 | 8 | 9 if history.holds:
                use_a_hold(ledger, history, random, notes)
            case _:
                ledger.request("transfer", account, user=user, to=other, amount=amount, **notes)
        if random.random() < 0.3:
            partition = random.randrange(PARTITIONS)
            await ledger.settle(partition, random.randint(1, 10))


def use_a_hold(
    ledger: PostgresLedger, history: History, random: Random, notes: dict[str, Any]
) -> None:
    """Capture from a hold, release it, or end it."""
    hold, account, user = random.choice(history.holds)
    match random.randint(0, 5):
        case 0:
            ledger.request("release", account, user=user, hold=hold, **notes)
        case 1:
            ledger.expire(account, hold)
        case _:
            amount = random.choice(("", "1", "20"))
            last = random.random() < 0.3
            ledger.request(
                "capture", account, user=user, amount=amount, hold=hold, last=last, **notes
            )


async def finish(ledger: PostgresLedger, history: History) -> None:
    """Do what the tests know by name."""
    history.anna, history.carl = (ledger.open(ANNA, "EUR", 0) for _ in range(2))
    history.bert, history.dora = (ledger.open(BERT, "EUR", 1) for _ in range(2))
    await ledger.drain()
    await set_aside(ledger, history)
    ledger.request("set_state", history.dora, state="frozen")
    ledger.request("deposit", history.anna, user=ANNA, amount="500")
    ledger.request("deposit", history.bert, user=BERT, amount="500")
    history.emil = ledger.open(ANNA, "EUR", 0)
    history.deposit = ledger.request("deposit", history.anna, user=ANNA, amount="100")
    history.inside = ledger.request(
        "transfer", history.anna, user=ANNA, to=history.carl, amount="5"
    )
    history.rejected = ledger.request("withdraw", history.anna, user=ANNA, amount="9999")
    await ledger.drain()
    history.refunded = ledger.request(
        "transfer", history.anna, user=ANNA, to=history.dora, amount="3"
    )
    await ledger.drain()
    history.crossed = ledger.request(
        "transfer", history.anna, user=ANNA, to=history.bert, amount="7", **NOTES[-1]
    )
    bare = Command(
        kind="transfer",
        leg="credit",
        operation=history.crossed,
        account=history.bert,
        user=ANNA,
        counterparty=history.anna,
        amount="7",
        currency="EUR",
    )
    history.bare_credit = body_hash(bare).hex()
    await ledger.drain()


async def set_aside(ledger: PostgresLedger, history: History) -> None:
    """Let Fritz have a hold that is open and one that was released."""
    fritz = history.fritz = ledger.open(ANNA, "EUR", 0)
    ledger.request("deposit", fritz, user=ANNA, amount="100")
    history.hold = ledger.request(
        "hold", fritz, user=ANNA, to=history.bert, amount="30", lifetime=10**9
    )
    ended = ledger.request("hold", fritz, user=ANNA, amount="5", lifetime=10**9)
    await ledger.drain()
    history.captured = ledger.request("capture", fritz, user=ANNA, amount="10", hold=history.hold)
    history.released = ledger.request("release", fritz, user=ANNA, hold=ended)
    await ledger.drain()


async def end(ledger: PostgresLedger, holds: Sequence[tuple[str, str, str]]) -> None:
    """Let the time of holds be over, and end them."""
    ledger.time += 2 * 10**9
    for hold, account, _ in holds:
        ledger.expire(account, hold)
    await ledger.drain()
