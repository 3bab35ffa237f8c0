"""Moves money while something is broken, from inside the cluster; runs in a pod of the API's image.

    python -c "$(cat money_mover.py)" URL PARTITIONS

Every account has a loop of its own that deposits, withdraws and transfers to others, one operation
after the other, each with an idempotency key: what fails is repeated with its key until it is
decided. Other accounts are only read, which must not fail either. When /tmp/stop appears the loops
end, all balances are compared with what was settled, and a report is printed as one line of JSON.

With an https URL the server's certificate is verified by the CA in SSL_CERT_FILE, and every
connection is opened again after some requests, as clients do that come and go.
"""

import asyncio
import contextlib
import itertools
import json
import os
import ssl
import sys
import time
import uuid
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from microfin.ledger.routing import partition_of

STOP = "/tmp/stop"  # noqa: S108 - in the pod
PAUSE = 0.15  # seconds between two operations of one account
READ = 6  # accounts that are only read
ANSWERED = 30.0  # seconds for one request
DECIDED = 150.0  # seconds until an operation must be decided
REQUESTS = 20  # of one connection with TLS: a renewed certificate is only seen by a new one
FINAL = ("settled", "rejected", "refunded")


class Connection:
    """One connection to the API, opened again when it was closed."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._tls = ssl.create_default_context() if place.scheme == "https" else None
        self._host, self._port = str(place.hostname), place.port or (443 if self._tls else 80)
        self._asked = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body. Raises OSError, EOFError or TimeoutError."""
        try:
            async with asyncio.timeout(ANSWERED):
                return await self._ask(method, path, headers, body)
        except BaseException:
            self.close()
            raise

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None
    ) -> tuple[int, dict[str, str], Any]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls
            )
        payload = b"" if body is None else json.dumps(body).encode()
        lines = {
            "Host": self._host,
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload)
        first, *rest = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in rest if line)
        }
        text = await self._reader.readexactly(int(headers.get("content-length", 0)))
        self._asked += 1
        if headers.get("connection") == "close" or (self._tls and self._asked % REQUESTS == 0):
            self.close()
        # A proxy's own answers are no JSON.
        body_read = json.loads(text) if "json" in headers.get("content-type", "") else None
        return int(first.split()[1]), headers, body_read

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class Tally:
    """What was seen."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.settled = 0
        self.accepted = 0
        self.failed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest = 0.0
        self.gaps: dict[int, float] = {}
        self._last: dict[int, float] = {}

    def note_settled(self, account: str, took: float) -> None:
        """Count an operation of an account that has settled now."""
        now, partition = time.monotonic(), partition_of(account, self.partitions)
        gap = now - self._last.get(partition, now)
        self.gaps[partition] = max(self.gaps.get(partition, 0.0), gap)
        self._last[partition] = now
        self.settled += 1
        self.longest = max(self.longest, took)

    def begin(self) -> None:
        """Count gaps from now on."""
        self.gaps.clear()
        self._last = dict.fromkeys(range(self.partitions), time.monotonic())

    def report(self) -> dict[str, Any]:
        """Return everything."""
        return {
            "settled": self.settled,
            "accepted": self.accepted,
            "failed": dict(self.failed),
            "refused": dict(self.refused),
            "wrong": self.wrong[:20],
            "longest_seconds": round(self.longest, 2),
            "gaps": {str(it): round(gap, 2) for it, gap in sorted(self.gaps.items())},
        }


class Account:
    """One account with its owner's session, and what its balance must be."""

    def __init__(self, url: str, session: str, number: str, tally: Tally) -> None:
        self.number = number
        self.cents = 0
        self._url = url
        self._session = session
        self._tally = tally
        self._connection = Connection(url)

    async def perform(self, path: str, body: dict[str, Any]) -> str:
        """Have an operation decided, however often it must be repeated; return its status."""
        key = uuid.uuid4().hex
        began = time.monotonic()
        while time.monotonic() - began < DECIDED:
            answer = await self._try("POST", path, {"Idempotency-Key": key}, body)
            status = await self._decided(answer)
            if status:
                if status == "settled":
                    self._tally.note_settled(self.number, time.monotonic() - began)
                return status
            await asyncio.sleep(0.3)
        self._tally.wrong.append(f"{path} {body} was not decided within {DECIDED:.0f} s")
        return "undecided"

    async def _decided(self, answer: tuple[int, dict[str, str], Any] | None) -> str:
        """Return the final status that an answer leads to, or nothing: then it is repeated."""
        if answer is None:
            return ""
        code, headers, body = answer
        if code in (200, 201):
            return str(body.get("status", "settled"))
        if code == 422:
            self._tally.wrong.append(f"rejected: {body}")
            return "rejected"
        if code != 202:
            return ""
        self._tally.accepted += 1
        deadline = time.monotonic() + DECIDED
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            later = await self._try("GET", headers["location"], {})
            if later is not None and later[0] == 200 and later[2]["status"] in FINAL:
                return str(later[2]["status"])
        return ""

    async def _try(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, str], Any] | None:
        """Return the answer; None, counted, where there was none or the request was refused."""
        bearer = {"Authorization": f"Bearer {self._session}", **headers}
        try:
            answer = await self._connection.ask(method, path, bearer, body)
        except (OSError, EOFError, TimeoutError) as error:
            self._tally.failed[f"{method} {path.partition('?')[0][:14]} {error!r}"[:120]] += 1
            return None
        if answer[0] >= 429 and answer[0] != 451:
            self._tally.refused[f"{answer[0]} {(answer[2] or {}).get('code')}"] += 1
            return None
        return answer

    async def read_while(self, going: asyncio.Event) -> None:
        """Read the account, in which nothing moves."""
        while going.is_set():
            await self._try("GET", f"/api/accounts/{self.number}", {})
            await asyncio.sleep(PAUSE)

    async def balance(self) -> int:
        """Return the balance in cents."""
        for _ in range(100):
            answer = await self._try("GET", f"/api/accounts/{self.number}", {})
            if answer is not None and answer[0] == 200:
                return cents(answer[2]["balance"])
            await asyncio.sleep(0.3)
        return -1


def cents(amount: str) -> int:
    """Return an amount in minor units."""
    whole, _, part = amount.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


async def open_accounts(
    url: str, partitions: int, tally: Tally
) -> tuple[list[Account], list[Account]]:
    """Sign up somebody and open accounts until every partition has one; and others to be read."""
    connection = Connection(url)
    email = f"mover-{uuid.uuid4().hex}@example.com"
    user = {"name": "Mover", "email": email, "password": uuid.uuid4().hex}
    _, _, body = await connection.ask("POST", "/api/signup", {}, user)
    session = body["sessionId"]
    accounts: list[Account] = []
    while len(accounts) < READ + 8 or {
        partition_of(it.number, partitions) for it in accounts[READ:]
    } != set(range(partitions)):
        bearer = {"Authorization": f"Bearer {session}"}
        _, _, body = await connection.ask("POST", "/api/accounts", bearer, {})
        accounts.append(Account(url, session, body["accountNumber"], tally))
    connection.close()
    return accounts[READ:], accounts[:READ]


async def move(account: Account, others: list[Account], going: asyncio.Event) -> None:
    """Move an account's money until the file STOP exists."""
    partners = itertools.cycle(others)
    for turn in itertools.count():
        if not going.is_set():
            return
        if turn % 5 == 0:
            body = {"accountNumber": account.number, "amount": "3.00"}
            if await account.perform("/api/deposit", body) == "settled":
                account.cents += 300
        elif turn % 5 == 1:
            body = {"accountNumber": account.number, "amount": "1.00"}
            if await account.perform("/api/withdraw", body) == "settled":
                account.cents -= 100
        else:
            partner = next(partners)
            body = {
                "senderAccountNumber": account.number,
                "receiverAccountNumber": partner.number,
                "amount": "0.25",
            }
            if await account.perform("/api/transfer", body) == "settled":
                account.cents -= 25
                partner.cents += 25
        await asyncio.sleep(PAUSE)


async def main(url: str, partitions: int) -> None:
    """Move money until /tmp/stop appears, compare, and report."""
    tally = Tally(partitions)
    accounts, read = await open_accounts(url, partitions, tally)
    for account in accounts:
        body = {"accountNumber": account.number, "amount": "10000.00"}
        if await account.perform("/api/deposit", body) == "settled":
            account.cents += 1_000_000
    tally.begin()
    going = asyncio.Event()
    going.set()
    loops = [
        asyncio.create_task(move(it, [one for one in accounts if one is not it], going))
        for it in accounts
    ]
    loops += [asyncio.create_task(it.read_while(going)) for it in read]
    print("READY", flush=True)
    while not os.path.exists(STOP):  # noqa: ASYNC110, ASYNC240, PTH110 - once a tenth of a second
        await asyncio.sleep(0.1)
    going.clear()
    await asyncio.gather(*loops)
    for account in accounts:
        found = await account.balance()
        if found != account.cents:
            tally.wrong.append(f"{account.number} has {found} cents, not {account.cents}")
    print("REPORT", json.dumps(tally.report()), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[-2], int(sys.argv[-1])))
