"""What the comparison must know of a ledger: a class of about thirty lines, an adapter."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from microfin_loadtest.errors import LoadImpossible

Account = Mapping[str, str]
"""What the request of a transfer needs of an account, by names of your choice, such as `number`."""

_PLACE = re.compile(r"<(?:(sender|receiver)\.(\w+)|unique)>")


@dataclass(frozen=True)
class Transfer:
    """The request of one transfer, and which answer says that it settled.

    In `url`, `body` and the values of `headers`, `<sender.NAME>` and `<receiver.NAME>` stand for
    what `prepare` returned for the two accounts, and `<unique>` for a text that no other request
    has. An answer with another status than `settled_statuses`, or without `settled_text` in its
    body, is not settled.
    """

    url: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    settled_statuses: tuple[int, ...] = (200,)
    settled_text: str = ""


class Ledger(Protocol):
    """An adapter. Its class is called `Adapter` and is made with what follows `=` on the command
    line, such as a URL; '' if nothing does."""

    def prepare(self, accounts: int) -> Sequence[Account]:
        """Open this many accounts, each with funds for all runs."""
        ...

    def transfer(self) -> Transfer:
        """Return the request of a transfer of the smallest amount."""
        ...

    def settled(self) -> int:
        """Return how many transfers the ledger's own database has settled, ever."""
        ...

    def audit(self) -> str:
        """Return what is wrong with the ledger at rest; '' if nothing is, or none can say."""
        ...


def plan_of(accounts: Sequence[Account], transfer: Transfer, run: str) -> dict[str, Any]:
    """Return what compare.js sends: the accounts and the request.

    Raises LoadImpossible for a request that cannot be sent.
    """
    if len(accounts) < 2:
        raise LoadImpossible("`prepare` returned less than two accounts: a transfer needs two.")
    for text in (transfer.url, transfer.body, *transfer.headers.values()):
        for match in _PLACE.finditer(text):
            _check_place(match[0], match[2], accounts)
    if "<unique>" not in "".join((transfer.url, transfer.body, *transfer.headers.values())):
        raise LoadImpossible(
            "The request of the transfer has no <unique>. A ledger may take two equal requests for "
            "one and its repetition: put it where the ledger expects a reference or a key."
        )
    accounts = [dict(account) for account in accounts]
    return {"run": run, "accounts": accounts, **asdict(transfer)}


def _check_place(place: str, name: str | None, accounts: Sequence[Account]) -> None:
    if name is not None and any(name not in account for account in accounts):
        known = ", ".join(accounts[0])
        raise LoadImpossible(
            f"The request of the transfer has {place}, but an account of `prepare` has no {name}; "
            f"the first has: {known}."
        )
