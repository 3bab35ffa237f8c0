"""The rules of holds: money that is set aside, until it is captured, released, or its time ends.

See docs/adr/0049-holds.md. What is held stays in the account's balance and is not available. A hold
ends once: by its last capture, by a release, or by an `expire`, which a worker appends when its
time is over. From that time on, by the log, nothing is captured any more.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from microfin.ledger.columns import BIGINT_MOST, nearest_moment
from microfin.ledger.effects import Effects, HoldChange, Rejection
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Hold, LegKey, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command


def hold_ids(batch: Sequence[Received]) -> list[str]:
    """Return the holds that the batch takes from or ends, each once.

    They must be known before the batch is decided.
    """
    ids: dict[str, None] = {}
    for received in batch:
        command = received.command
        if command is not None and command.leg == "request" and command.hold:
            ids[command.hold] = None
    return list(ids)


def receivers(batch: Sequence[Received], holds: Mapping[str, Hold]) -> list[str]:
    """Return the accounts that the captures of the batch may pay."""
    named = {hold.operation: hold.receiver for hold in holds.values()}
    for received in batch:
        command = received.command
        if command is not None and command.kind == "hold":
            named.setdefault(command.operation, command.counterparty)
    return [named[hold] for hold in hold_ids(batch) if named.get(hold)]


class HoldRules(Effects):
    """Decides what makes a hold, takes from it and ends it."""

    def __init__(
        self,
        partition: int,
        routing: Routing,
        accounts: Mapping[str, Account],
        known: Mapping[LegKey, Outcome],
        holds: Mapping[str, Hold],
    ) -> None:
        super().__init__(partition, routing, accounts, known)
        self.existing_holds = holds

    def _on_hold(self, command: Command) -> None:
        """Decide an operation on a hold. Raises `Rejection`."""
        match command.kind:
            case "hold":
                self._hold(command)
            case "capture":
                self._capture(command)
            case "release":
                self._release(command)
            case "expire":
                self._expire(command)

    def _hold(self, command: Command) -> None:
        account = self._own_open_account(command)
        if command.counterparty == account.number:
            raise Rejection("same_account", account.number)
        amount = self._minor_units(command, account.currency)
        self._check_funds(account, amount)
        account = self._set_aside(account, amount)
        hold = Hold(
            operation=command.operation,
            account=account.number,
            receiver=command.counterparty,
            amount=amount,
            left=amount,
            ends=nearest_moment(self.time + command.lifetime),
        )
        self.decisions.holds[hold.operation] = hold
        change = HoldChange(change=amount, left=amount, ends=hold.ends)
        self._record_applied(command, account, amount=amount, hold=change)

    def _capture(self, command: Command) -> None:
        account = self._own_open_account(command)
        hold = self._open_hold(command)
        amount = hold.left
        if command.amount:
            amount = self._minor_units(command, account.currency)
        if amount > hold.left:
            raise Rejection(
                "hold_exceeded",
                account.number,
                needed=amount if amount <= BIGINT_MOST else None,  # the column cannot hold more
                available=hold.left,
            )
        left = 0 if command.last else hold.left - amount
        taken = hold.left - left
        change = HoldChange(operation=hold.operation, change=-taken, left=left)
        self._pay(command, hold, replace(account, held=account.held - taken), amount, change)
        self.decisions.holds[hold.operation] = replace(hold, left=left)

    def _pay(
        self, command: Command, hold: Hold, account: Account, amount: int, change: HoldChange
    ) -> None:
        """Move what is captured to the hold's receiver. Raises `Rejection` if it cannot arrive."""
        paying = replace(command, counterparty=hold.receiver)
        if not hold.receiver:
            account = self._write_entry(account, -amount, paying, "cash")
            self._record_movement(paying, account, amount, hold=change)
        elif partition_of(hold.receiver, self.routing.partition_count) == self.partition:
            receiver = self._receiver(hold.receiver, account.currency, amount)
            self._move_inside(paying, account, receiver, amount, change)
        else:
            self._move_out(paying, account, amount, change)

    def _release(self, command: Command) -> None:
        account = self._own_account(command)  # frozen, too
        hold = self._open_hold(command)
        self._give_back(command, account, hold)

    def _expire(self, command: Command) -> None:
        """End a hold whose time is over. Otherwise nothing happens, and nothing is remembered."""
        account, hold = self._account(command.account), self._find_hold(command)
        if account is not None and hold is not None and self.time >= hold.ends:
            self._give_back(command, account, hold)

    def _give_back(self, command: Command, account: Account, hold: Hold) -> None:
        account = self._set_aside(account, -hold.left)
        self.decisions.holds[hold.operation] = replace(hold, left=0)
        change = HoldChange(operation=hold.operation, change=-hold.left, left=0)
        self._record_applied(command, account, hold=change)

    def _set_aside(self, account: Account, amount: int) -> Account:
        account = replace(account, held=account.held + amount, version=account.version + 1)
        self.decisions.accounts[account.number] = account
        return account

    def _open_hold(self, command: Command) -> Hold:
        """Return the hold of a capture or a release. Raises `Rejection` if it has ended."""
        hold = self._find_hold(command)
        if hold is not None and self.time < hold.ends:
            return hold
        made = self.known.get((command.hold, "request"))
        was_one = made is not None and (made.kind, made.status, made.account) == (
            "hold",
            "settled",
            command.account,
        )
        raise Rejection("hold_ended" if hold or was_one else "hold_not_found", command.account)

    def _find_hold(self, command: Command) -> Hold | None:
        """Return the hold that a command names, if it is one of its account and has not ended."""
        hold = self.decisions.holds.get(command.hold) or self.existing_holds.get(command.hold)
        if hold is None or not hold.left or hold.account != command.account:
            return None
        return hold
