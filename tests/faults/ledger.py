"""What the ledger holds of one round: the decided legs, the entries, and the balances around it."""

from collections.abc import Mapping
from typing import Literal

import msgspec

LegName = Literal["request", "credit", "refund"]


class Leg(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decided leg, and where in the log it was."""

    operation: str
    leg: LegName
    kind: str
    status: Literal["settled", "debited", "rejected"]
    account: str
    counterparty: str = ""
    user: str = ""
    amount: int | None = None
    seq: int | None = None
    balance: int | None = None
    reason: str = ""
    needed: int | None = None
    available: int | None = None
    partition: int = 0
    offset: int = 0
    reference: str = ""
    held: int = 0
    hold: str = ""
    held_change: int = 0
    hold_left: int | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an account's statement."""

    account: str
    seq: int
    amount: int
    balance_after: int
    operation: str
    leg: LegName
    partition: int = 0
    reference: str = ""


class AccountState(msgspec.Struct, frozen=True):
    """An account's last entry and its balance."""

    seq: int
    balance: int


class Ledger(msgspec.Struct, frozen=True):
    """Legs and entries since the round began, and all accounts before and after it."""

    legs: list[Leg]
    entries: list[Entry]
    before: Mapping[str, AccountState]
    after: Mapping[str, AccountState]
