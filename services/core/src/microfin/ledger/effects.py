"""What a batch changes: the accounts, entries, outcomes, commands and answers of its decisions.

These are the steps that rules share. Which of them a command takes is for `decision` and
`hold_rules`.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from microfin.ledger.columns import BIGINT_MOST
from microfin.ledger.money import (
    BALANCE_LIMIT,
    TooManyDecimals,
    to_canonical_amount,
    to_minor_units,
)
from microfin.ledger.operation import (
    Contra,
    Operation,
    Outcome,
    OutcomeStatus,
    Reason,
    add_up,
    same_body,
)
from microfin.ledger.records import Account, Answer, Decisions, Entry, LegKey, OutboxRow
from microfin.ledger.routing import Routing
from microfin.ledger.wire import Command, body_hash


class Rejection(Exception):
    """A leg cannot be applied. The code that catches it records the outcome."""

    def __init__(
        self,
        reason: Reason,
        at_account: str = "",
        needed: int | None = None,
        available: int | None = None,
        held: int = 0,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_account = at_account
        self.needed = needed
        self.available = available
        self.held = held


class HoldChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a leg did to a hold, as its outcome says it (`Outcome`)."""

    operation: str = ""
    change: int = 0
    left: int | None = None
    ends: int | None = None


NO_HOLD: Final = HoldChange()


class Effects:
    """What a batch has decided so far, on top of what there was before it."""

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

    # Rules ----------------------------------------------------------------------------------

    def _account(self, number: str) -> Account | None:
        return self.decisions.accounts.get(number) or self.existing.get(number)

    def _own_open_account(self, command: Command) -> Account:
        account = self._own_account(command)
        require_open(account)
        return account

    def _own_account(self, command: Command) -> Account:
        account = self._account(command.account)
        if account is None:
            raise Rejection("account_not_found", command.account)
        if account.owner != command.user:
            raise Rejection("not_owner", command.account)
        return account

    def _receiver(self, number: str, currency: str, amount: int) -> Account:
        account = self._account(number)
        if account is None:
            raise Rejection("account_not_found", number)
        require_open(account)
        if account.currency != currency:
            raise Rejection("currency_mismatch", number)
        self._check_limit(account, amount)
        return account

    @staticmethod
    def _minor_units(command: Command, currency: str) -> int:
        try:
            return to_minor_units(command.amount, currency)
        except TooManyDecimals:
            raise Rejection("too_many_decimals", command.account) from None

    @staticmethod
    def _check_funds(account: Account, amount: int) -> None:
        if amount > account.available:
            raise Rejection(
                "insufficient_funds",
                account.number,
                needed=amount if amount <= BIGINT_MOST else None,  # the column cannot hold more
                available=account.available,
                held=account.held,
            )

    @staticmethod
    def _check_limit(account: Account, amount: int) -> None:
        if account.balance + amount > BALANCE_LIMIT:
            raise Rejection("balance_limit", account.number)

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
            held=account.held,
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

    def _move_inside(
        self,
        command: Command,
        sender: Account,
        receiver: Account,
        amount: int,
        hold: HoldChange = NO_HOLD,
    ) -> None:
        """Move money to a receiver of this partition, in one step."""
        sender = self._write_entry(sender, -amount, command, "in_transit")
        receiver = self._write_entry(receiver, amount, command, "in_transit")
        self._record_movement(command, sender, amount, counterparty_seq=receiver.seq, hold=hold)

    def _move_out(
        self, command: Command, sender: Account, amount: int, hold: HoldChange = NO_HOLD
    ) -> None:
        """Take money from the sender, and send the credit to the receiver's partition."""
        sender = self._write_entry(sender, -amount, command, "in_transit")
        self._record_movement(command, sender, amount, status="debited", hold=hold)
        self._send(
            Command(
                kind=command.kind,
                leg="credit",
                operation=command.operation,
                account=command.counterparty,
                counterparty=sender.number,
                user=command.user,
                amount=to_canonical_amount(amount, sender.currency),
                currency=sender.currency,
                reply=command.reply,
                sender_seq=sender.seq,
                sender_balance=sender.balance,
                sender_held=sender.held,
                reference=command.reference,
                hold=hold.operation,
                hold_left=hold.left or 0,
                released=-hold.change - amount if hold.operation else 0,
            )
        )

    def _record_movement(
        self,
        command: Command,
        account: Account,
        amount: int,
        status: OutcomeStatus = "settled",
        counterparty_seq: int | None = None,
        hold: HoldChange = NO_HOLD,
    ) -> None:
        self._record_applied(
            command,
            account,
            status=status,
            amount=amount,
            counterparty_seq=counterparty_seq,
            hold=hold,
        )

    def _record_applied(
        self,
        command: Command,
        account: Account,
        *,
        status: OutcomeStatus = "settled",
        amount: int | None = None,
        counterparty_seq: int | None = None,
        hold: HoldChange = NO_HOLD,
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
                currency=account.currency,
                seq=account.seq,
                balance=account.balance,
                counterparty_seq=counterparty_seq,
                reference=command.reference,
                metadata=command.metadata,
                held=account.held,
                hold=hold.operation,
                held_change=hold.change,
                hold_left=hold.left,
                ends=hold.ends,
            ),
        )

    def _reject(self, command: Command, rejection: Rejection) -> None:
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
                held=rejection.held,
                hold=command.hold if command.leg == "request" else "",
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


def require_open(account: Account) -> None:
    """Raise `Rejection` unless money may leave the account and come to it."""
    if account.state == "frozen":
        raise Rejection("account_frozen", account.number)
    if account.state == "closed":
        raise Rejection("account_closed", account.number)


def _seen_by_sender(
    command: Command, outcome: Outcome, status: Literal["settled", "refunded"]
) -> Operation:
    """Return the operation as its sender sees it, from the credit's or the refund's command."""
    refunded = status == "refunded"
    return Operation(
        operation=outcome.operation,
        kind=outcome.kind,
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
        held=outcome.held if refunded else command.sender_held,
        hold=command.hold,
        hold_left=command.hold_left if command.hold else None,
        released=command.released if command.hold else None,
    )
