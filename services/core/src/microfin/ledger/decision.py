"""The decision core: what a batch of commands does to the accounts of one partition.

It is a pure function: it has no clock, no I/O and no randomness, and does not change its inputs. A
bad command never makes its neighbours fail: every command ends as exactly one of an outcome, a
repeat of an earlier outcome, a refused repeat, a forwarded command or a quarantined record.

Which commands an account accepts, by its state:

| state  | deposit | withdraw, transfer out | credit        | refund | set_state                  |
|--------|---------|------------------------|---------------|--------|----------------------------|
| open   | yes     | owner, funds           | yes           | yes    | frozen; closed if balance 0|
| frozen | no      | no                     | no (refunded) | yes    | open; closed if balance 0  |
| closed | no      | no                     | no (refunded) | yes    | open                       |
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec.structs import replace

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.columns import BIGINT_MOST
from microfin.ledger.money import BALANCE_LIMIT, EXPONENTS, TooManyDecimals, to_minor_units
from microfin.ledger.operation import (
    Contra,
    Kind,
    Operation,
    Outcome,
    OutcomeStatus,
    Reason,
    add_up,
    same_body,
)
from microfin.ledger.records import Account, Answer, Decisions, Entry, LegKey, OutboxRow, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command, body_hash

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
        elif received.identity is not None and received.identity.leg == "request":
            keys[(received.identity.operation, "request")] = None
    return list(keys)


def account_numbers(batch: Sequence[Received], partition: int, routing: Routing) -> list[str]:
    """Return the numbers of this partition's accounts that the batch may touch, each once."""
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
    return list(numbers)


def decide(
    partition: int,
    routing: Routing,
    accounts: Mapping[str, Account],
    known: Mapping[LegKey, Outcome],
    batch: Sequence[Received],
) -> Decisions:
    """Decide `batch`, in offset order, for `partition` under `routing`.

    `accounts` holds those of `account_numbers(batch)` that exist, `known` those outcomes of
    `leg_keys(batch)` that exist. Raises `GenerationAhead` if a record is of a later routing.
    """
    deciding = Deciding(partition, routing, accounts, known)
    for received in batch:
        deciding.decide(received)
    return deciding.decisions


class _Rejection(Exception):
    """A leg cannot be applied. The code that catches it records the outcome."""

    def __init__(
        self,
        reason: Reason,
        at_account: str = "",
        needed: int | None = None,
        available: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_account = at_account
        self.needed = needed
        self.available = available


class Deciding:
    """Decides a batch command by command, for callers that must pause in between.

    It holds the inputs and, on top of them, what the batch has decided so far.
    """

    def __init__(
        self,
        partition: int,
        routing: Routing,
        accounts: Mapping[str, Account],
        known: Mapping[LegKey, Outcome],
    ) -> None:
        self.partition = partition
        self.routing = routing
        self.existing = accounts
        self.known = dict(known)
        self.decisions = Decisions.none()
        self.offset = 0
        self.time = 0
        self.step = 0

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
                raise _Rejection("expired")
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
        except _Rejection as rejection:
            self._reject(command, rejection)

    def _open(self, command: Command) -> None:
        if command.currency not in EXPONENTS:
            raise _Rejection("unknown_currency")
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
        self._record_applied(command, currency=account.currency, balance=0, seq=0)

    def _open_elsewhere(self, command: Command) -> None:
        """Forward the next attempt; this partition records nothing of a forwarded operation."""
        attempt = command.attempt + 1
        if attempt >= NUMBER_ATTEMPTS:
            raise _Rejection("no_free_number")
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
            raise _Rejection("same_account", sender.number)
        amount = self._minor_units(command, sender.currency)
        self._check_funds(sender, amount)
        count = self.routing.partition_count
        if partition_of(command.counterparty, count) == self.partition:
            self._transfer_inside(command, sender, amount)
        else:
            self._transfer_out(command, sender, amount)

    def _transfer_inside(self, command: Command, sender: Account, amount: int) -> None:
        receiver = self._receiver(command.counterparty, sender.currency, amount)
        sender = self._write_entry(sender, -amount, command, "in_transit")
        receiver = self._write_entry(receiver, amount, command, "in_transit")
        self._record_movement(command, sender, amount, counterparty_seq=receiver.seq)

    def _transfer_out(self, command: Command, sender: Account, amount: int) -> None:
        sender = self._write_entry(sender, -amount, command, "in_transit")
        self._record_movement(command, sender, amount, status="debited")
        self._send(
            Command(
                kind="transfer",
                leg="credit",
                operation=command.operation,
                account=command.counterparty,
                counterparty=sender.number,
                user=command.user,
                amount=command.amount,
                currency=sender.currency,
                reply=command.reply,
                sender_seq=sender.seq,
                sender_balance=sender.balance,
                reference=command.reference,
            )
        )

    def _set_state(self, command: Command) -> None:
        account = self._account(command.account)
        if account is None:
            raise _Rejection("account_not_found", command.account)
        if command.state is None or command.state == account.state:
            raise _Rejection("state_unchanged", account.number)
        if account.state == "closed" and command.state != "open":
            raise _Rejection("account_closed", account.number)
        if command.state == "closed" and account.balance != 0:
            raise _Rejection("balance_not_zero", account.number, available=account.balance)
        account = replace(account, state=command.state, version=account.version + 1)
        self.decisions.accounts[account.number] = account
        self._record_applied(
            command, currency=account.currency, balance=account.balance, seq=account.seq
        )

    # Credits and refunds --------------------------------------------------------------------

    def _credit(self, command: Command) -> None:
        try:
            amount = to_minor_units(command.amount, command.currency)
            account = self._receiver(command.account, command.currency, amount)
        except TooManyDecimals:
            self._reject(command, _Rejection("too_many_decimals"))
            self._send_refund(command, _Rejection("too_many_decimals"))
        except _Rejection as rejection:
            self._reject(command, rejection)
            self._send_refund(command, rejection)
        else:
            account = self._write_entry(account, amount, command, "in_transit")
            self._record_movement(command, account, amount)

    def _send_refund(self, command: Command, rejection: _Rejection) -> None:
        self._send(
            Command(
                kind="transfer",
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

    # Rules ----------------------------------------------------------------------------------

    def _account(self, number: str) -> Account | None:
        return self.decisions.accounts.get(number) or self.existing.get(number)

    def _own_open_account(self, command: Command) -> Account:
        account = self._account(command.account)
        if account is None:
            raise _Rejection("account_not_found", command.account)
        if account.owner != command.user:
            raise _Rejection("not_owner", command.account)
        _require_open(account)
        return account

    def _receiver(self, number: str, currency: str, amount: int) -> Account:
        account = self._account(number)
        if account is None:
            raise _Rejection("account_not_found", number)
        _require_open(account)
        if account.currency != currency:
            raise _Rejection("currency_mismatch", number)
        self._check_limit(account, amount)
        return account

    @staticmethod
    def _minor_units(command: Command, currency: str) -> int:
        try:
            return to_minor_units(command.amount, currency)
        except TooManyDecimals:
            raise _Rejection("too_many_decimals", command.account) from None

    @staticmethod
    def _check_funds(account: Account, amount: int) -> None:
        if amount > account.balance:
            raise _Rejection(
                "insufficient_funds",
                account.number,
                needed=amount if amount <= BIGINT_MOST else None,  # the column cannot hold more
                available=account.balance,
            )

    @staticmethod
    def _check_limit(account: Account, amount: int) -> None:
        if account.balance + amount > BALANCE_LIMIT:
            raise _Rejection("balance_limit", account.number)

    # Effects --------------------------------------------------------------------------------

    def _write_entry(
        self, account: Account, amount: int, command: Command, contra: Contra
    ) -> Account:
        time = max(self.time, account.entry_time)
        own = account.number == command.account
        account = Account(
            number=account.number,
            owner=account.owner,
            currency=account.currency,
            balance=account.balance + amount,
            state=account.state,
            seq=account.seq + 1,
            version=account.version + 1,
            entry_time=time,
        )
        self.decisions.accounts[account.number] = account
        self.decisions.entries.append(
            Entry(
                account.number,
                account.seq,
                amount,
                account.balance,
                command.operation,
                command.leg,
                command.kind,
                contra,
                command.counterparty if own else command.account,
                time,
                command.reference,
            )
        )
        key = (contra, account.currency)
        self.decisions.contra[key] = self.decisions.contra.get(key, 0) - amount
        return account

    def _record_movement(
        self,
        command: Command,
        account: Account,
        amount: int,
        status: OutcomeStatus = "settled",
        counterparty_seq: int | None = None,
    ) -> None:
        self._record_applied(
            command,
            status=status,
            amount=amount,
            currency=account.currency,
            seq=account.seq,
            balance=account.balance,
            counterparty_seq=counterparty_seq,
        )

    def _record_applied(
        self,
        command: Command,
        *,
        currency: str,
        balance: int,
        seq: int,
        status: OutcomeStatus = "settled",
        amount: int | None = None,
        counterparty_seq: int | None = None,
    ) -> None:
        self._record(
            command,
            Outcome(
                operation=command.operation,
                leg=command.leg,
                kind=command.kind,
                status=status,
                account=command.account,
                body_hash=body_hash(command),
                offset=self.offset,
                time=self.time,
                user=command.user,
                counterparty=command.counterparty,
                amount=amount,
                currency=currency,
                seq=seq,
                balance=balance,
                counterparty_seq=counterparty_seq,
                reference=command.reference,
                metadata=command.metadata,
            ),
        )

    def _reject(self, command: Command, rejection: _Rejection) -> None:
        account = self._account(command.account)
        # `needed` and `available` are in the account's currency, even if the command names another.
        named = "" if rejection.available is not None else command.currency
        self._record(
            command,
            Outcome(
                operation=command.operation,
                leg=command.leg,
                kind=command.kind,
                status="rejected",
                account=command.account,
                body_hash=body_hash(command),
                offset=self.offset,
                time=self.time,
                user=command.user,
                counterparty=command.counterparty,
                currency=named or (account.currency if account else ""),
                reason=rejection.reason,
                at_account=rejection.at_account,
                needed=rejection.needed,
                available=rejection.available,
                reference=command.reference,
                metadata=command.metadata,
            ),
        )

    def _record(self, command: Command, outcome: Outcome) -> None:
        self.decisions.outcomes.append(outcome)
        self.known[(outcome.operation, outcome.leg)] = outcome
        self._answer(command, outcome, replayed=False)

    def _repeat(self, command: Command, outcome: Outcome) -> None:
        """Give the first answer again to a leg that was decided before, without an effect."""
        if same_body(outcome, body_hash(command)):
            self._answer(command, outcome, replayed=True)
        elif command.reply:
            self.decisions.answers.append(
                Answer(command.reply, add_up(outcome, None, None), replayed=True, refused=True)
            )

    def _answer(self, command: Command, outcome: Outcome, *, replayed: bool) -> None:
        """Answer the waiting client, if this outcome allows an answer.

        A first debit gives no answer yet: the worker of the credit or the refund will give it. The
        answer to a repeated debit is `in_transit`, and the waiting API reads the operation itself.
        """
        if not command.reply:
            return
        if outcome.leg == "credit":
            if outcome.status != "settled":
                return
            operation = _seen_by_sender(command, outcome, "settled")
        elif outcome.leg == "refund":
            operation = _seen_by_sender(command, outcome, "refunded")
        elif outcome.status == "debited" and not replayed:
            return
        else:
            operation = add_up(outcome, None, None)
        if operation.metadata is not None:  # the client has it, and others may hear the answer
            operation = replace(operation, metadata=None)
        self.decisions.answers.append(Answer(command.reply, operation, replayed))

    def _send(self, command: Command) -> None:
        self.decisions.outbox.append(OutboxRow(self.offset, self.step, command))
        self.step += 1

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
        self._reject(command, _Rejection("quarantined"))


_KINDS: Final[dict[str, Kind]] = {
    "open": "open",
    "deposit": "deposit",
    "withdraw": "withdraw",
    "transfer": "transfer",
    "set_state": "set_state",
}


def _require_open(account: Account) -> None:
    if account.state == "frozen":
        raise _Rejection("account_frozen", account.number)
    if account.state == "closed":
        raise _Rejection("account_closed", account.number)


def _refundable(account: Account, amount: str) -> int | None:
    """Return `amount` in minor units, or None if the account cannot hold that much more."""
    try:
        minor_units = to_minor_units(amount, account.currency)
    except TooManyDecimals:
        return None
    return minor_units if account.balance + minor_units <= BIGINT_MOST else None


def _seen_by_sender(
    command: Command, outcome: Outcome, status: Literal["settled", "refunded"]
) -> Operation:
    """Return the transfer as its sender sees it, from the credit's or the refund's command."""
    refunded = status == "refunded"
    return Operation(
        operation=outcome.operation,
        kind="transfer",
        status=status,
        account=outcome.account if refunded else outcome.counterparty,
        time=outcome.time,
        user=outcome.user,
        counterparty=outcome.counterparty if refunded else outcome.account,
        amount=outcome.amount,
        currency=outcome.currency,
        seq=outcome.seq if refunded else command.sender_seq,
        balance=outcome.balance if refunded else command.sender_balance,
        reason=command.reason or "" if refunded else "",
        at_account=command.at_account if refunded else "",
        reference=outcome.reference,
    )
