"""The ledger as a newcomer would write it: one command at a time, exact fractions, plain loops.

It shares no code with the decision core but the words, so that both must be wrong in the same way
for a test against it to pass.
"""

from dataclasses import dataclass, field
from decimal import Decimal

DECIMALS = {"EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4}
LIMIT = {currency: Decimal(10**15).scaleb(-decimals) for currency, decimals in DECIMALS.items()}


@dataclass
class NaiveHold:
    account: str
    receiver: str
    left: Decimal
    ends: int
    ended: bool = False


@dataclass
class NaiveAccount:
    owner: str
    currency: str
    balance: Decimal = Decimal(0)
    state: str = "open"
    lines: list[Decimal] = field(default_factory=list)


class NaiveBank:
    """All accounts of all partitions at once: a transfer is one step."""

    def __init__(self) -> None:
        self.accounts: dict[str, NaiveAccount] = {}
        self.answers: dict[str, str] = {}
        self.holds: dict[str, NaiveHold] = {}

    def apply(self, command, time: int) -> str:  # noqa: ANN001
        """Apply a request, once; return `settled` or the reason that it was not.

        `nothing` is for what has no effect and is not remembered.
        """
        if command.operation not in self.answers:
            answer = self._apply(command, time)
            if answer == "nothing":
                return answer
            self.answers[command.operation] = answer
        return self.answers[command.operation]

    def held(self, number: str) -> Decimal:
        """Return the sum of what the account's holds have left."""
        return sum((it.left for it in self.holds.values() if it.account == number), Decimal(0))

    def _apply(self, command, time: int) -> str:  # noqa: ANN001, C901, PLR0911, PLR0912
        account = self.accounts.get(command.account)
        if command.kind == "expire":
            hold = self.holds.get(command.hold)
            if hold is None or hold.ended or command.account != hold.account or time < hold.ends:
                return "nothing"
            self._end(hold)
            return "settled"
        if command.kind == "open":
            if command.currency not in DECIMALS:
                return "unknown_currency"
            self.accounts[command.account] = NaiveAccount(command.user, command.currency)
            return "settled"
        if account is None:
            return "account_not_found"
        if command.kind == "set_state":
            allowed = {
                ("open", "frozen"): True,
                ("open", "closed"): account.balance == 0,
                ("frozen", "open"): True,
                ("frozen", "closed"): account.balance == 0,
                ("closed", "open"): True,
            }
            if not allowed.get((account.state, command.state), False):
                if account.state == command.state:
                    return "state_unchanged"
                return "account_closed" if account.state == "closed" else "balance_not_zero"
            account.state = command.state
            return "settled"
        if account.owner != command.user:
            return "not_owner"
        if account.state != "open" and command.kind != "release":
            return f"account_{account.state}"
        if command.kind in ("capture", "release"):
            return self._take(account, command, time)
        if command.kind in ("transfer", "hold") and command.counterparty == command.account:
            return "same_account"
        amount = Decimal(command.amount)
        if -amount.as_tuple().exponent > DECIMALS[account.currency]:
            return "too_many_decimals"
        if command.kind == "deposit":
            if account.balance + amount > LIMIT[account.currency]:
                return "balance_limit"
            self._move(account, amount)
            return "settled"
        if amount > account.balance - self.held(command.account):
            return "insufficient_funds"
        if command.kind == "hold":
            self.holds[command.operation] = NaiveHold(
                command.account, command.counterparty, amount, time + command.lifetime
            )
            return "settled"
        return self._pay(
            account, amount, "" if command.kind == "withdraw" else command.counterparty
        )

    def _take(self, account: NaiveAccount, command, time: int) -> str:  # noqa: ANN001
        hold = self.holds.get(command.hold)
        if hold is None or hold.account != command.account:
            return "hold_not_found"
        if hold.ended or time >= hold.ends:
            return "hold_ended"
        if command.kind == "release":
            self._end(hold)
            return "settled"
        amount = Decimal(command.amount) if command.amount else hold.left
        if -amount.as_tuple().exponent > DECIMALS[account.currency]:
            return "too_many_decimals"
        if amount > hold.left:
            return "hold_exceeded"
        answer = self._pay(account, amount, hold.receiver)
        if answer == "settled":
            hold.left -= amount
            if command.last or not hold.left:
                self._end(hold)
        return answer

    @staticmethod
    def _end(hold: NaiveHold) -> None:
        hold.left, hold.ended = Decimal(0), True

    def _pay(self, account: NaiveAccount, amount: Decimal, to: str) -> str:
        if not to:
            self._move(account, -amount)
            return "settled"
        receiver = self.accounts.get(to)
        if receiver is None:
            return "account_not_found"
        if receiver.state != "open":
            return f"account_{receiver.state}"
        if receiver.currency != account.currency:
            return "currency_mismatch"
        if receiver.balance + amount > LIMIT[receiver.currency]:
            return "balance_limit"
        self._move(account, -amount)
        self._move(receiver, amount)
        return "settled"

    @staticmethod
    def _move(account: NaiveAccount, amount: Decimal) -> None:
        account.balance += amount
        account.lines.append(amount)
