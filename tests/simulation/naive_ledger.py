"""The ledger as a newcomer would write it, fed with the committed legs one by one.

It shares no code with the decision core but the words. What it answers must be what was committed.
"""

from dataclasses import dataclass

from microfin.ledger.operation import Outcome
from microfin.ledger.wire import Command
from simulation.effects import Effect, partition_of

EXPONENTS = {"EUR": 2, "JPY": 0}


@dataclass
class NaiveHold:
    account: str
    receiver: str
    left: int
    ends: int
    ended: bool = False


@dataclass
class NaiveAccount:
    owner: str
    currency: str
    balance: int = 0
    state: str = "open"
    seq: int = 0


class NaiveLedger:
    """All accounts of all shards."""

    def __init__(self) -> None:
        self.accounts: dict[str, NaiveAccount] = {}
        self._debits: dict[str, tuple[int, str]] = {}
        self.holds: dict[str, NaiveHold] = {}

    def add(self, effect: Effect, commands: list[Command], time: int, *, expired: bool) -> str:
        """Apply a committed leg; return what is wrong with it, or nothing.

        `commands` are the bodies that were sent under the operation's id: one of them decided it.
        `time` is when its record was appended, `expired` whether that was after its deadline.
        """
        outcome = effect.outcome
        if expired:
            expected = ("rejected", "expired")
        elif outcome.leg == "credit":
            expected = self._credit(outcome)
        elif outcome.leg == "refund":
            expected = self._refund(outcome)
        elif outcome.kind == "expire":
            expected = self._expire(outcome, time)
        elif outcome.kind in ("hold", "capture", "release"):
            expected = self._on_hold(effect, commands[0], time)
        else:
            body = [it for it in commands if self._minor(it, outcome) == outcome.amount]
            expected = self._request(effect, (body or commands)[0])
        account = self.accounts.get(outcome.account)
        decided = (outcome.status, outcome.reason)
        if decided != expected:
            return f"was decided {in_words(decided)} where its turn asked for {in_words(expected)}"
        if outcome.seq is None or account is None:
            return ""
        left = (outcome.seq, outcome.balance, outcome.held)
        expected_left = (account.seq, account.balance, self.held(outcome.account))
        if left != expected_left:
            return f"left (seq, balance, held) {left} where its turn asked for {expected_left}"
        return ""

    def held(self, number: str) -> int:
        """Return the sum of what the account's holds have left."""
        return sum(it.left for it in self.holds.values() if it.account == number)

    def _minor(self, command: Command, outcome: Outcome) -> int:
        account = self.accounts.get(outcome.account)
        exponent = EXPONENTS[account.currency] if account else 0
        return int(command.amount or "0") * 10**exponent

    def _request(  # noqa: PLR0911 - plain, rule by rule
        self, effect: Effect, command: Command
    ) -> tuple[str, str]:
        outcome = effect.outcome
        account = self.accounts.get(outcome.account)
        if command.kind == "open":
            if account is not None:
                return ("passed on", "")
            self.accounts[outcome.account] = NaiveAccount(command.user, command.currency)
            return ("settled", "")
        if account is None:
            return ("rejected", "account_not_found")
        if command.kind == "set_state":
            return self._set_state(account, command.state or "")
        if account.owner != command.user:
            return ("rejected", "not_owner")
        if account.state != "open":
            return ("rejected", f"account_{account.state}")
        amount = self._minor(command, outcome)
        if command.kind == "deposit":
            self._move(account, amount)
            return ("settled", "")
        if command.kind == "transfer" and command.counterparty == command.account:
            return ("rejected", "same_account")
        if amount > account.balance - self.held(outcome.account):
            return ("rejected", "insufficient_funds")
        to = command.counterparty if command.kind == "transfer" else ""
        return self._pay(effect, command.operation, account, to, amount)

    def _pay(
        self, effect: Effect, operation: str, account: NaiveAccount, to: str, amount: int
    ) -> tuple[str, str]:
        if not to:
            self._move(account, -amount)
            return ("settled", "")
        if partition_of(to, effect.partition_count) != effect.partition:
            self._debits[operation] = (amount, account.currency)
            self._move(account, -amount)
            return ("debited", "")
        reason = self._refusal(to, account.currency)
        if reason:
            return ("rejected", reason)
        self._move(account, -amount)
        self._move(self.accounts[to], amount)
        return ("settled", "")

    def _on_hold(  # noqa: PLR0911 - plain, rule by rule
        self, effect: Effect, command: Command, time: int
    ) -> tuple[str, str]:
        account = self.accounts.get(command.account)
        if account is None:
            return ("rejected", "account_not_found")
        if account.owner != command.user:
            return ("rejected", "not_owner")
        if account.state != "open" and command.kind != "release":
            return ("rejected", f"account_{account.state}")
        if command.kind != "hold":
            return self._take(effect, account, command, time)
        if command.counterparty == command.account:
            return ("rejected", "same_account")
        amount = self._minor(command, effect.outcome)
        if amount > account.balance - self.held(command.account):
            return ("rejected", "insufficient_funds")
        self.holds[command.operation] = NaiveHold(
            command.account, command.counterparty, amount, time + command.lifetime
        )
        return ("settled", "")

    def _take(
        self, effect: Effect, account: NaiveAccount, command: Command, time: int
    ) -> tuple[str, str]:
        hold = self.holds.get(command.hold)
        if hold is None or hold.account != command.account:
            return ("rejected", "hold_not_found")
        if hold.ended or time >= hold.ends:
            return ("rejected", "hold_ended")
        if command.kind == "release":
            self._end(hold)
            return ("settled", "")
        amount = self._minor(command, effect.outcome) or hold.left
        if amount > hold.left:
            return ("rejected", "hold_exceeded")
        answer = self._pay(effect, command.operation, account, hold.receiver, amount)
        if answer[0] != "rejected":
            hold.left -= amount
            if command.last or not hold.left:
                self._end(hold)
        return answer

    def _expire(self, outcome: Outcome, time: int) -> tuple[str, str]:
        hold = self.holds.get(outcome.hold)
        if hold is None or hold.ended or time < hold.ends:
            return ("not remembered", "")
        self._end(hold)
        return ("settled", "")

    @staticmethod
    def _end(hold: NaiveHold) -> None:
        hold.left, hold.ended = 0, True

    def _refusal(self, number: str, currency: str) -> str:
        receiver = self.accounts.get(number)
        if receiver is None:
            return "account_not_found"
        if receiver.state != "open":
            return f"account_{receiver.state}"
        return "currency_mismatch" if receiver.currency != currency else ""

    def _credit(self, outcome: Outcome) -> tuple[str, str]:
        if outcome.operation not in self._debits:
            return ("undebited", "")
        amount, currency = self._debits[outcome.operation]
        reason = self._refusal(outcome.account, currency)
        if reason:
            return ("rejected", reason)
        self._move(self.accounts[outcome.account], amount)
        return ("settled", "")

    def _refund(self, outcome: Outcome) -> tuple[str, str]:
        if outcome.operation not in self._debits:
            return ("undebited", "")
        amount, _ = self._debits[outcome.operation]
        self._move(self.accounts[outcome.account], amount)
        return ("settled", "")

    @staticmethod
    def _set_state(account: NaiveAccount, state: str) -> tuple[str, str]:
        if state == account.state:
            return ("rejected", "state_unchanged")
        if account.state == "closed" and state != "open":
            return ("rejected", "account_closed")
        if state == "closed" and account.balance != 0:
            return ("rejected", "balance_not_zero")
        account.state = state
        return ("settled", "")

    @staticmethod
    def _move(account: NaiveAccount, amount: int) -> None:
        account.balance += amount
        account.seq += 1


def in_words(decided: tuple[str, str]) -> str:
    """Return a status and a reason in words."""
    status, reason = decided
    return f"{status} ({reason})" if reason else status
