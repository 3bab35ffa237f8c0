"""The decision core: what a batch of commands does to the accounts of one partition.

It is a pure function: it has no clock, no I/O and no randomness, and does not change its inputs. A
bad command never makes its neighbours fail: every command ends as exactly one of an outcome, a
repeat of an earlier outcome, a refused repeat, a forwarded command or a quarantined record.

Which commands an account accepts, by its state:

| state  | deposit | withdraw, transfer out, hold | capture | release | credit        | refund |
|--------|---------|------------------------------|---------|---------|---------------|--------|
| open   | yes     | owner, funds                 | owner   | owner   | yes           | yes    |
| frozen | no      | no                           | no      | owner   | no (refunded) | yes    |
| closed | no      | no                           | no      | no hold | no (refunded) | yes    |

An open account may be frozen, and a frozen one opened; either may be closed with a balance of 0,
so without holds; a closed one may be opened. Funds are what is available: the balance without what
is held.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.columns import BIGINT_MOST
from microfin.ledger.effects import Rejection
from microfin.ledger.hold_rules import HoldRules, receivers
from microfin.ledger.money import EXPONENTS, TooManyDecimals, to_minor_units
from microfin.ledger.operation import Kind, Outcome
from microfin.ledger.records import Account, Decisions, Hold, LegKey, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command

_NO_HOLDS: Final[Mapping[str, Hold]] = {}

NUMBER_ATTEMPTS: Final = 64
"""How many derived numbers `open` tries before it gives up. A second one is rarely needed."""


class GenerationAhead(Exception):
    """A record was sent under a routing that this partition's row does not know.

    The partition's shard was restored to a state from before a growth: a decision would break the
    order.
    """

    def __init__(self, offset: int, generation: int, own: int) -> None:
        super().__init__(
            f"The record at offset {offset} has routing generation {generation}, the partition's "
            f"row has {own}: the database is older than the log. Recover the shard first."
        )


def leg_keys(batch: Sequence[Received]) -> list[LegKey]:
    """Return the (operation, leg) pairs whose outcomes must be known before the batch is decided.

    The answer to a credit or a refund also shows the request, whose outcome may be on another
    shard: so the command carries what is shown of it.
    """
    keys: dict[LegKey, None] = {}
    for received in batch:
        if received.command is not None:
            keys[(received.command.operation, received.command.leg)] = None
            if received.command.hold and received.command.leg == "request":
                keys[(received.command.hold, "request")] = None
        elif received.identity is not None and received.identity.leg == "request":
            keys[(received.identity.operation, "request")] = None
    return list(keys)


def account_numbers(
    batch: Sequence[Received],
    partition: int,
    routing: Routing,
    holds: Mapping[str, Hold] = _NO_HOLDS,
) -> list[str]:
    """Return the numbers of this partition's accounts that the batch may touch, each once.

    `holds` are those of `hold_ids(batch)` that are open.
    """
    numbers: dict[str, None] = {}
    for received in batch:
        command = received.command
        if command is None:
            continue
        numbers[command.account] = None
        if (
            command.leg == "request"
            and command.kind == "transfer"
            and partition_of(command.counterparty, routing.partition_count) == partition
        ):
            numbers[command.counterparty] = None
    for number in receivers(batch, holds):
        if partition_of(number, routing.partition_count) == partition:
            numbers[number] = None
    return list(numbers)


def decide(
    partition: int,
    routing: Routing,
    accounts: Mapping[str, Account],
    known: Mapping[LegKey, Outcome],
    batch: Sequence[Received],
    holds: Mapping[str, Hold] = _NO_HOLDS,
) -> Decisions:
    """Decide `batch`, in offset order, for `partition` under `routing`.

    `accounts` has those of `account_numbers(batch)` that exist, `known` those outcomes of
    `leg_keys(batch)` that exist, `holds` those of `hold_ids(batch)` that are open. Raises
    `GenerationAhead` if a record is of a later routing.
    """
    deciding = Deciding(partition, routing, accounts, known, holds)
    for received in batch:
        deciding.decide(received)
    return deciding.decisions


class Deciding(HoldRules):
    """Decides a batch command by command, for callers that must pause in between."""

    def decide(self, received: Received) -> None:
        """Decide the next record of the batch."""
        self.offset = received.offset
        self.step = 0
        command = received.command
        if command is None:
            self.time = received.time
            self._quarantine(received)
            return
        self.time = command.appended or received.time
        if command.generation > self.routing.generation:
            raise GenerationAhead(received.offset, command.generation, self.routing.generation)
        if partition_of(command.account, self.routing.partition_count) != self.partition:
            self._send(replace(command, appended=self.time))
            return
        outcome = self.known.get((command.operation, command.leg))
        if outcome is not None:
            self._repeat(command, outcome)
        elif command.leg == "request":
            self._request(command)
        elif command.leg == "credit":
            self._credit(command)
        else:
            self._refund(command, received)

    # Requests -------------------------------------------------------------------------------

    def _request(self, command: Command) -> None:
        try:
            if command.deadline and self.time > command.deadline:
                raise Rejection("expired")
            match command.kind:
                case "open":
                    self._open(command)
                case "deposit":
                    self._deposit(command)
                case "withdraw":
                    self._withdraw(command)
                case "transfer":
                    self._transfer(command)
                case "set_state":
                    self._set_state(command)
                case "hold" | "capture" | "release" | "expire":
                    self._on_hold(command)
        except Rejection as rejection:
            self._reject(command, rejection)

    def _open(self, command: Command) -> None:
        if command.currency not in EXPONENTS:
            raise Rejection("unknown_currency")
        if self._account(command.account) is not None:
            self._open_elsewhere(command)
            return
        account = Account(
            number=command.account,
            owner=command.user,
            currency=command.currency,
            entry_time=self.time,
        )
        self.decisions.accounts[account.number] = account
        self.decisions.opened[account.number] = self.time
        self._record_applied(command, account)

    def _open_elsewhere(self, command: Command) -> None:
        """Forward the next attempt; this partition records nothing of a forwarded operation."""
        attempt = command.attempt + 1
        if attempt >= NUMBER_ATTEMPTS:
            raise Rejection("no_free_number")
        number = derive_account_number(command.operation, attempt)
        self._send(replace(command, account=number, attempt=attempt, appended=self.time))

    def _deposit(self, command: Command) -> None:
        account = self._own_open_account(command)
        amount = self._minor_units(command, account.currency)
        self._check_limit(account, amount)
        account = self._write_entry(account, amount, command, "cash")
        self._record_movement(command, account, amount)

    def _withdraw(self, command: Command) -> None:
        account = self._own_open_account(command)
        amount = self._minor_units(command, account.currency)
        self._check_funds(account, amount)
        account = self._write_entry(account, -amount, command, "cash")
        self._record_movement(command, account, amount)

    def _transfer(self, command: Command) -> None:
        sender = self._own_open_account(command)
        if command.counterparty == sender.number:
            raise Rejection("same_account", sender.number)
        amount = self._minor_units(command, sender.currency)
        self._check_funds(sender, amount)
        count = self.routing.partition_count
        if partition_of(command.counterparty, count) == self.partition:
            receiver = self._receiver(command.counterparty, sender.currency, amount)
            self._move_inside(command, sender, receiver, amount)
        else:
            self._move_out(command, sender, amount)

    def _set_state(self, command: Command) -> None:
        account = self._account(command.account)
        if account is None:
            raise Rejection("account_not_found", command.account)
        if command.state is None or command.state == account.state:
            raise Rejection("state_unchanged", account.number)
        if account.state == "closed" and command.state != "open":
            raise Rejection("account_closed", account.number)
        if command.state == "closed" and account.balance != 0:  # nor is anything held of 0
            raise Rejection("balance_not_zero", account.number, available=account.balance)
        account = replace(account, state=command.state, version=account.version + 1)
        self.decisions.accounts[account.number] = account
        self._record_applied(command, account)

    # Credits and refunds --------------------------------------------------------------------

    def _credit(self, command: Command) -> None:
        try:
            amount = to_minor_units(command.amount, command.currency)
            account = self._receiver(command.account, command.currency, amount)
        except TooManyDecimals:
            self._reject(command, Rejection("too_many_decimals"))
            self._send_refund(command, Rejection("too_many_decimals"))
        except Rejection as rejection:
            self._reject(command, rejection)
            self._send_refund(command, rejection)
        else:
            account = self._write_entry(account, amount, command, "in_transit")
            self._record_movement(command, account, amount)

    def _send_refund(self, command: Command, rejection: Rejection) -> None:
        self._send(
            Command(
                kind=command.kind,
                leg="refund",
                operation=command.operation,
                account=command.counterparty,
                counterparty=command.account,
                user=command.user,
                amount=command.amount,
                currency=command.currency,
                reply=command.reply,
                reason=rejection.reason,
                at_account=rejection.at_account,
                reference=command.reference,
                hold=command.hold,
                hold_left=command.hold_left,
                released=command.released,
            )
        )

    def _refund(self, command: Command, received: Received) -> None:
        """Apply a refund, whatever the account's state, and even above the balance limit."""
        account = self._account(command.account)
        fault = "a refund for an account that is missing or of another currency"
        if account is not None and account.currency == command.currency:
            amount = _refundable(account, command.amount)
            if amount is not None:
                account = self._write_entry(account, amount, command, "in_transit")
                self._record_movement(command, account, amount)
                return
            fault = "a refund of an amount that its account cannot hold"
        # No outcome is recorded: when the account is back, the record can be replayed.
        self.decisions.quarantined.append(replace(received, fault=fault))

    # Records that are no commands ------------------------------------------------------------

    def _quarantine(self, received: Received) -> None:
        """Set a record aside. A request of this partition that is undecided is also rejected."""
        self.decisions.quarantined.append(received)
        identity = received.identity
        if identity is None or identity.leg != "request":
            return
        here = partition_of(identity.account, self.routing.partition_count) == self.partition
        kind = _KINDS.get(identity.kind)
        if not here or kind is None or (identity.operation, "request") in self.known:
            return
        command = Command(
            kind=kind,
            leg="request",
            operation=identity.operation,
            account=identity.account,
            user=identity.user,
            reply=identity.reply,
        )
        self._reject(command, Rejection("quarantined"))


_KINDS: Final[dict[str, Kind]] = {
    "open": "open",
    "deposit": "deposit",
    "withdraw": "withdraw",
    "transfer": "transfer",
    "set_state": "set_state",
    "hold": "hold",
    "capture": "capture",
    "release": "release",
}


def _refundable(account: Account, amount: str) -> int | None:
    """Return `amount` in minor units, or None if the account cannot hold that much more."""
    try:
        minor_units = to_minor_units(amount, account.currency)
    except TooManyDecimals:
        return None
    return minor_units if account.balance + minor_units <= BIGINT_MOST else None
