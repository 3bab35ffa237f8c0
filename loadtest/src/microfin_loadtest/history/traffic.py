"""The made-up requests: accounts are opened and funded, then money moves between them.

It has no clock and no randomness of its own: the same plan gives the same requests.
"""

import random
from collections.abc import Container, Iterator, Sequence
from itertools import count
from typing import Final

import msgspec

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import Kind, operation_id
from microfin.ledger.wire import Command

_CURRENCY: Final = "EUR"
_FUNDS: Final = "1000000"
"""So much that no later request of a history is refused for its amount."""

_DEPOSITS: Final = 0.3
_WITHDRAWALS: Final = 0.5
"""Below this share it is a withdrawal, unless it is a deposit; the rest are transfers."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to make: `operations`, at least 10, on at least 2 `accounts` of `owners` (ids of users),
    from milliseconds `begins` to `ends` since the Unix epoch. `mark` makes its ids differ from
    those of other histories in the same ledger, whose account numbers are `taken`."""

    operations: int
    accounts: int
    owners: Sequence[str]
    begins: int
    ends: int
    mark: str
    taken: frozenset[str] = frozenset()

    def time_of(self, number: int) -> int:
        """Return the moment of the operation with this number, from 0."""
        return self.begins + (self.ends - self.begins) * number // self.operations


class _Account(msgspec.Struct, frozen=True, gc=False):
    number: str
    owner: str


def requests(plan: Plan) -> Iterator[Command]:
    """Yield the requests: each account is opened, then funded, when its turn comes."""
    chance = random.Random(plan.mark)  # noqa: S311 - it protects nothing
    accounts: list[_Account] = []
    taken = set(plan.taken)
    between = max(0, plan.operations // plan.accounts - 2)  # two openings
    made = 0
    while made < plan.operations:
        until = plan.operations
        if len(accounts) < plan.accounts and made + 2 <= plan.operations:
            owner = plan.owners[len(accounts) % len(plan.owners)]
            opening = _opening(plan, owner, len(accounts), taken)
            taken.add(opening.account)
            accounts.append(_Account(opening.account, owner))
            yield opening
            yield _movement(plan, "deposit", accounts[-1], made + 1, _FUNDS)
            made += 2
            until = min(made + between, until) if len(accounts) > 1 else made
        for number in range(made, until):
            yield _random_movement(plan, accounts, chance, number)
        made = until


def _opening(plan: Plan, owner: str, number: int, taken: Container[str]) -> Command:
    """Return the opening of an account. Of 100,000 numbers two are the same in one of 20 plans."""
    for key in count():
        operation = operation_id(owner, f"{plan.mark}-open-{number}-{key}", "open", "")
        account = derive_account_number(operation, 0)
        if account not in taken:
            break
    return Command(
        kind="open",
        leg="request",
        operation=operation,
        account=account,
        user=owner,
        currency=_CURRENCY,
    )


def _random_movement(
    plan: Plan, accounts: Sequence[_Account], chance: random.Random, number: int
) -> Command:
    account = accounts[int(chance.random() * len(accounts))]
    amount, which = str(1 + int(chance.random() * 9)), chance.random()
    if which < _DEPOSITS:
        return _movement(plan, "deposit", account, number, amount)
    if which < _WITHDRAWALS:
        return _movement(plan, "withdraw", account, number, amount)
    receiver = accounts[int(chance.random() * len(accounts))]
    if receiver is account:
        return _movement(plan, "deposit", account, number, amount)
    return _movement(plan, "transfer", account, number, amount, receiver.number)


def _movement(
    plan: Plan, kind: Kind, account: _Account, number: int, amount: str, receiver: str = ""
) -> Command:
    return Command(
        kind=kind,
        leg="request",
        operation=operation_id(account.owner, f"{plan.mark}-{number}", kind, account.number),
        account=account.number,
        user=account.owner,
        counterparty=receiver,
        amount=amount,
    )
