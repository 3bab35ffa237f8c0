"""Compares the clients' answers with what the ledger holds. Pure: no clock, no I/O.

It finds, each with a kind of its own:

`lost`          acknowledged, and not in the ledger
`doubled`       one leg with two outcomes or two effects, or credited and refunded
`half`          debited, and neither credited nor refunded
`invented`      in the ledger, and no client asked for it, or not for that
`contradicted`  an answer that is not what the ledger says, or two answers that differ
`unjustified`   a rejection for a reason that was not there
`reordered`     acknowledged before another was sent for the account, and took effect after it
`wrong balance` entries that do not lead from the balance before to the balance after
`wrong read`    a balance or statement that never was, or older than what had been acknowledged
`stuck`         never answered finally, though nothing was broken any more
`odd answer`    an answer that no client should ever get
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from faults.comparing import compare
from faults.effect_order import AccountOrder, Place, PlacedEntry
from faults.finding import Finding
from faults.history import History, Read
from faults.ledger import AccountState, Entry, Ledger, Leg, LegName
from microfin.ledger.wire import expiry_of

HARMLESS_REASONS = frozenset({"expired"})
"""Rejections that a fault may cause, whether or not the accounts hold enough."""

_NOTHING = AccountState(0, 0)
_LONG = 600  # seconds: no round lasts so long


def check(history: History, ledger: Ledger) -> list[Finding]:
    """Return everything that history and ledger have against each other; nothing is right."""
    return list(_Checking(history, ledger).findings())


class _Checking:
    def __init__(self, history: History, ledger: Ledger) -> None:
        self._history = history
        self._ledger = ledger
        self._asked = {it.operation: it for it in (*history.unresolved, *history.asked)}
        self._legs: dict[str, dict[LegName, Leg]] = defaultdict(dict)
        self._ended_holds = {it.hold for it in ledger.legs if it.hold_left == 0}
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        self._of_account: dict[str, list[Entry]] = defaultdict(list)
        for entry in ledger.entries:
            self._entries[entry.operation].append(entry)
            self._of_account[entry.account].append(entry)
        for entries in self._of_account.values():
            entries.sort(key=lambda it: it.seq)

    def findings(self) -> Iterator[Finding]:
        yield from self._take_legs()
        for asked in self._asked.values():
            yield from compare(
                asked, self._legs.get(asked.operation, {}), self._entries.get(asked.operation, [])
            )
        for operation, entries in self._entries.items():
            if operation not in self._asked and operation not in self._legs:
                yield Finding("invented", f"an entry of {entries[0].amount}", operation)
        for account in self._of_account.keys() | self._ledger.after.keys():
            yield from self._balances(account)
        yield from self._order_and_reasons()
        for read in self._history.reads:
            yield from self._read(read)
        for asked in self._history.asked:
            if asked.attempts and asked.answered is None and not asked.abandoned:
                yield Finding("stuck", f"{asked.kind} has no end", asked.operation, asked.account)
        for oddity in self._history.oddities:
            yield Finding("odd answer", f"{oddity.status} {oddity.body}", oddity.operation)

    def _take_legs(self) -> Iterator[Finding]:
        for leg in self._ledger.legs:
            if _is_marker(leg):
                continue
            if leg.leg in self._legs[leg.operation]:
                yield Finding("doubled", f"two outcomes of {leg.leg}", leg.operation)
            self._legs[leg.operation][leg.leg] = leg
            if leg.operation not in self._asked and not self._is_an_end(leg):
                yield Finding(
                    "invented", f"nobody asked for this {leg.kind}", leg.operation, leg.account
                )

    def _is_an_end(self, leg: Leg) -> bool:
        """Whether a worker ended a hold whose time was over: no client asks for that.

        The hold may be of an earlier round.
        """
        hold = self._asked.get(leg.hold)
        return (
            (leg.kind, leg.leg, leg.status) == ("expire", "request", "settled")
            and leg.operation == expiry_of(leg.hold)
            and (hold is None or (hold.kind, hold.account) == ("hold", leg.account))
        )

    def _balances(self, account: str) -> Iterator[Finding]:
        """Follow the account's entries from before the round to its end."""
        state = self._ledger.before.get(account, _NOTHING)
        for entry in self._of_account.get(account, ()):
            follows = entry.seq == state.seq + 1
            if not follows or entry.balance_after != state.balance + entry.amount:
                yield Finding(
                    "wrong balance",
                    f"entry {entry.seq} ({entry.amount}, then {entry.balance_after}) does not "
                    f"follow {state}",
                    entry.operation,
                    account,
                )
            if entry.balance_after < 0:
                yield Finding("wrong balance", "negative", entry.operation, account)
            state = AccountState(entry.seq, entry.balance_after)
        after = self._ledger.after.get(account)
        if after != state:
            yield Finding("wrong balance", f"{after}, but the entries lead to {state}", "", account)

    # Order ----------------------------------------------------------------------------------

    def _order_and_reasons(self) -> Iterator[Finding]:
        requests: dict[str, list[Leg]] = defaultdict(list)
        for leg in self._ledger.legs:
            if leg.leg == "request" and leg.operation in self._asked:
                requests[leg.account].append(leg)
        for account in requests.keys() | self._of_account.keys():
            placed = [
                PlacedEntry(entry, self._offset(entry)) for entry in self._of_account[account]
            ]
            before = self._ledger.before.get(account, _NOTHING)
            order = AccountOrder(placed, before.seq)
            yield from self._in_order(account, order, requests[account])
            for leg in requests[account]:
                yield from self._reason(leg, order, before)

    def _offset(self, entry: Entry) -> int:
        leg = self._legs.get(entry.operation, {}).get(entry.leg)
        return leg.offset if leg is not None else -1

    def _in_order(
        self, account: str, order: AccountOrder, requests: Sequence[Leg]
    ) -> Iterator[Finding]:
        """Invariant 7. An effect must not come after one that was sent after its answer."""
        effects: list[tuple[Place, float, float | None, str]] = []
        for entry in self._of_account[account]:
            asked = self._asked.get(entry.operation)
            if asked is not None:
                own = entry.leg == "request" and entry.account == asked.account
                known = asked.acknowledged if own else asked.answered
                place = order.of_entry(entry.seq)
                effects.append((place, asked.first_sent, known, asked.operation))
        for leg in requests:
            if leg.seq is None or leg.kind in ("hold", "release"):  # what has no entry
                rejected_at = order.of_rejection(leg.partition, leg.offset)
                if rejected_at is not None:
                    asked = self._asked[leg.operation]
                    effects.append(
                        (rejected_at, asked.first_sent, asked.acknowledged, asked.operation)
                    )
        effects.sort(key=lambda it: it[0])
        latest, latest_operation = float("-inf"), ""
        for _, sent, known, operation in effects:
            if known is not None and known < latest:
                yield Finding(
                    "reordered",
                    f"acknowledged at {known:.3f}, but {latest_operation}, which was sent at "
                    f"{latest:.3f}, took effect before it",
                    operation,
                    account,
                )
            if sent > latest:
                latest, latest_operation = sent, operation

    def _reason(  # noqa: C901 - one reason after another
        self, leg: Leg, order: AccountOrder, before: AccountState
    ) -> Iterator[Finding]:
        if leg.status != "rejected" or leg.reason in HARMLESS_REASONS:
            return
        asked = self._asked[leg.operation]
        unjustified = Finding("unjustified", f"rejected: {leg.reason}", leg.operation, leg.account)
        if leg.reason == "account_not_found" and asked.kind in ("transfer", "capture"):
            if asked.counterparty in self._ledger.after:
                yield unjustified
        elif leg.reason == "hold_ended":
            if asked.hold not in self._ended_holds and self._asked[asked.hold].lifetime > _LONG:
                yield unjustified
        elif leg.reason == "hold_exceeded":
            if leg.needed != asked.amount or (leg.available or 0) >= asked.amount:
                yield unjustified
        elif leg.reason == "insufficient_funds":
            if leg.needed != asked.amount or (leg.available or 0) >= asked.amount:
                yield unjustified
            place = order.of_rejection(leg.partition, leg.offset)
            balance = self._balance_after(leg.account, place, before)
            if balance is not None and balance != (leg.available or 0) + leg.held:
                yield Finding(
                    "unjustified",
                    f"rejected with {leg.available} available and {leg.held} held, but the "
                    f"balance was {balance}",
                    leg.operation,
                    leg.account,
                )
        else:
            yield unjustified

    def _balance_after(self, account: str, place: Place | None, before: AccountState) -> int | None:
        if place is None:
            return None
        index = place[0] - before.seq - 1
        entries = self._of_account[account]
        if index < 0:
            return before.balance if index == -1 else None
        return entries[index].balance_after if index < len(entries) else None

    # Reads ----------------------------------------------------------------------------------

    def _read(self, read: Read) -> Iterator[Finding]:
        if read.seq < read.at_least:
            yield Finding(
                "wrong read",
                f"read up to entry {read.seq}, but entry {read.at_least} had been acknowledged",
                "",
                read.account,
            )
        if read.balance is not None:
            known = self._balance_at(read.account, read.seq)
            if known is not None and known != read.balance:
                yield Finding(
                    "wrong read",
                    f"{read.balance} at entry {read.seq}, not {known}",
                    "",
                    read.account,
                )
        for line in read.lines:
            entry = self._entry_at(read.account, line.seq)
            if entry is not None and (
                *(entry.amount, entry.balance_after),
                *(entry.operation, entry.reference),
            ) != (line.amount, line.balance_after, line.operation, line.reference):
                yield Finding("wrong read", f"{line} is not {entry}", line.operation, read.account)

    def _entry_at(self, account: str, seq: int) -> Entry | None:
        index = seq - self._ledger.before.get(account, _NOTHING).seq - 1
        entries = self._of_account.get(account, [])
        return entries[index] if 0 <= index < len(entries) else None

    def _balance_at(self, account: str, seq: int) -> int | None:
        before = self._ledger.before.get(account, _NOTHING)
        if seq == before.seq:
            return before.balance
        entry = self._entry_at(account, seq)
        return entry.balance_after if entry is not None else None


def _is_marker(leg: Leg) -> bool:
    """Whether a growth marked the log with it: no client asks for that, and it has no effect."""
    decided = (leg.kind, leg.leg, leg.status, leg.reason)
    return decided == ("set_state", "request", "rejected", "expired") and leg.account[0] == "0"
