"""The accounts that a worker remembers between batches.

This is safe because only the current claimant under the current generation changes them
(invariant 6). When the worker can no longer be sure that it is the claimant, it forgets everything.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from microfin.ledger.records import Account


class AccountMemory:
    """The accounts that were used last, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def recall(self, numbers: Iterable[str]) -> tuple[dict[str, Account], list[str]]:
        """Return the accounts of `numbers` that are remembered, and the numbers of the others."""
        remembered: dict[str, Account] = {}
        others: list[str] = []
        for number in numbers:
            account = self._accounts.get(number)
            if account is None:
                others.append(number)
            else:
                remembered[number] = account
        return remembered, others

    def remember(self, accounts: Mapping[str, Account]) -> None:
        """Remember `accounts` as they are after a commit."""
        for number, account in accounts.items():
            self._accounts[number] = account
            self._accounts.move_to_end(number)
        while len(self._accounts) > self._limit:
            self._accounts.popitem(last=False)

    def forget(self) -> None:
        """Forget all accounts."""
        self._accounts.clear()
