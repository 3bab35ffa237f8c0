"""Sends operations to the API and writes down what is answered."""

import time
from typing import Any, Final
from zlib import crc32

import msgspec

from faults.history import Answer, Asked, Attempt, History, Line, Oddity, Read, Result
from faults.http_connection import Connections, NoAnswer, Response
from microfin.ledger.operation import operation_id

_PATHS: Final = {
    "open": "/api/accounts",
    "deposit": "/api/deposit",
    "withdraw": "/api/withdraw",
    "transfer": "/api/transfer",
    "hold": "/api/holds",
}
_NOT_DONE: Final = frozenset({"overloaded", "unavailable"})
_LINES: Final = 20

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Customer(msgspec.Struct):
    """A user who is signed in."""

    user: str
    session: str


class OwnAccount(msgspec.Struct):
    """An account of a customer, and its highest entry that was acknowledged to the customer."""

    number: str
    customer: Customer
    seq: int = 0


def new_operation(kind: Any, key: str, account: OwnAccount, **fields: Any) -> Asked:
    """Return an operation that was not sent yet, with the id that the API will give it."""
    user = account.customer.user
    number = "" if kind == "open" else account.number
    operation = operation_id(user, key, kind, number)
    asked = Asked(operation, key, kind, user, number, **fields)
    if kind != "open" and crc32(key.encode()) % 2:
        asked.reference = f"for {key}"
    return asked


class Teller:
    """Knows the API's answers. All that it learns goes into the history."""

    def __init__(self, connections: Connections, history: History) -> None:
        self._connections = connections
        self.history = history

    async def attempt(self, asked: Asked, account: OwnAccount) -> tuple[Result, str]:
        """Send the operation once; return how the request ended, and the Location of a 202."""
        headers = f"Idempotency-Key: {asked.key}\r\n"
        if asked.asynchronous:
            headers += "Prefer: respond-async\r\n"
        attempt = Attempt(time.monotonic(), 0.0, 0, "unknown")
        asked.attempts.append(attempt)
        try:
            response = await self._connections.ask(
                "POST",
                _path(asked),
                account.customer.session,
                _body(asked, asked.amount),
                headers,
            )
        except NoAnswer:
            attempt.ended = time.monotonic()
            return "unknown", ""
        attempt.ended, attempt.status = time.monotonic(), response.status
        attempt.result = self._take(asked, account, response, attempt)
        return attempt.result, response.location

    def _take(
        self, asked: Asked, account: OwnAccount, response: Response, attempt: Attempt
    ) -> Result:
        shown = _decode(response.body) if response.body.startswith(b"{") else {}
        attempt.code = shown.get("code", "")
        status = shown.get("operationStatus", shown.get("status"))
        if shown.get("operationId", asked.operation) != asked.operation:
            self._odd(asked, response)
        elif response.status in (200, 201) and status == "settled":
            self._settle(asked, account, shown, "settled", attempt.ended)
            return "final"
        elif response.status in (404, 422) and status in ("rejected", "refunded"):
            self._settle(asked, account, shown, status, attempt.ended)
            return "final"
        elif response.status == 202 and response.location:
            if asked.acknowledged is None:
                asked.acknowledged = attempt.ended
            return "accepted"
        elif response.status == 503:
            return "refused" if attempt.code in _NOT_DONE else "unknown"
        else:
            self._odd(asked, response)
        return "unknown"

    async def follow(self, asked: Asked, account: OwnAccount, location: str) -> bool:
        """Ask at a Location once; return whether the operation is final."""
        try:
            response = await self._connections.ask("GET", location, account.customer.session)
        except NoAnswer:
            return False
        if response.status == 200:
            shown = _decode(response.body)
            if shown["status"] in ("settled", "rejected", "refunded"):
                self._settle(asked, account, shown, shown["status"], time.monotonic())
                return True
        elif response.status != 503:
            self._odd(asked, response)
        return False

    def _settle(
        self, asked: Asked, account: OwnAccount, shown: dict[str, Any], status: Any, now: float
    ) -> None:
        reason = "" if status == "settled" else str(shown.get("reason") or shown.get("code", ""))
        seq = shown.get("seq")
        settled = status == "settled"
        answer = Answer(
            status,
            reason,
            shown.get("accountNumber", "") if settled else "",
            _minor_units(shown["balance"]) if "balance" in shown else None,
            seq,
        )
        asked.answers = [*asked.answers, answer]
        if asked.acknowledged is None:
            asked.acknowledged = now
        if asked.answered is None:
            asked.answered = now
        if seq is not None and asked.kind != "open":
            account.seq = max(account.seq, seq)

    async def reuse_key(self, asked: Asked, account: OwnAccount) -> None:
        """Ask for another amount under the key of an operation that is settled: to be refused."""
        headers = f"Idempotency-Key: {asked.key}\r\n"
        body = _body(asked, asked.amount + 1)
        try:
            response = await self._connections.ask(
                "POST", _path(asked), account.customer.session, body, headers
            )
        except NoAnswer:
            return
        refused = response.status == 422 and b"key_reused" in response.body
        if not refused and response.status not in (202, 503):
            self._odd(asked, response)

    async def read_statement(self, account: OwnAccount) -> None:
        """Read the last lines of the statement."""
        at_least = account.seq
        shown = await self._get(account, f"/entries?limit={_LINES}")
        if shown is None:
            return
        lines = [
            Line(
                it["seq"],
                _minor_units(it["amount"]),
                _minor_units(it["balanceAfter"]),
                it["operationId"],
                it.get("reference", ""),
            )
            for it in shown["entries"]
        ]
        seq = lines[0].seq if lines else 0
        self.history.reads.append(Read(account.number, at_least, seq, None, lines))

    async def read_balance(self, account: OwnAccount) -> None:
        """Read the balance."""
        at_least = account.seq
        shown = await self._get(account)
        if shown is not None:
            balance = _minor_units(shown["balance"])
            self.history.reads.append(Read(account.number, at_least, shown["seq"], balance))

    async def _get(self, account: OwnAccount, rest: str = "") -> dict[str, Any] | None:
        path = f"/api/accounts/{account.number}{rest}"
        try:
            response = await self._connections.ask("GET", path, account.customer.session)
        except NoAnswer:
            return None
        if response.status == 200:
            return _decode(response.body)
        if response.status != 503:
            self._oddity("", response)
        return None

    def _odd(self, asked: Asked, response: Response) -> None:
        self._oddity(asked.operation, response)

    def _oddity(self, operation: str, response: Response) -> None:
        body = response.body.decode(errors="replace")[:500]
        self.history.oddities.append(Oddity(time.monotonic(), operation, response.status, body))


def _path(asked: Asked) -> str:
    if asked.hold:
        return f"/api/holds/{asked.account}-{asked.hold}/{asked.kind}"
    return _PATHS[asked.kind]


def _body(asked: Asked, amount: int) -> bytes:
    decimal = f"{amount // 100}.{amount % 100:02d}"
    reference = f',"reference":"{asked.reference}"' if asked.reference else ""
    if asked.kind == "open":
        return b"{}"
    if asked.kind == "release":
        return f"{{{reference[1:]}}}".encode()
    if asked.kind == "capture":
        return f'{{"amount":"{decimal}"{reference}}}'.encode()
    if asked.kind == "hold":
        receiver = ""
        if asked.counterparty:
            receiver = f',"receiverAccountNumber":"{asked.counterparty}"'
        return (
            f'{{"accountNumber":"{asked.account}","amount":"{decimal}",'
            f'"expiresIn":{asked.lifetime}{receiver}{reference}}}'
        ).encode()
    if asked.kind == "transfer":
        return (
            f'{{"senderAccountNumber":"{asked.account}",'
            f'"receiverAccountNumber":"{asked.counterparty}","amount":"{decimal}"{reference}}}'
        ).encode()
    return f'{{"accountNumber":"{asked.account}","amount":"{decimal}"{reference}}}'.encode()


def _minor_units(text: str) -> int:
    """Return minor units of an amount that has all its decimals."""
    return int(text.replace(".", ""))
