"""The model clients: each account has one, who moves its money and does what a good client does.

A client sends an operation, and after every answer that leaves it in doubt the same again with the
same key, until the end is known; a few are given up in doubt, as by a client that died. Accounts of
some clients are moved in chains of 202: each operation sent as soon as the one before it is
acknowledged (invariant 7). Nobody waits for anybody else, so a partition that makes no
progress delays only its own clients.
"""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from faults.history import Asked, History
from faults.http_connection import Connections, NoAnswer
from faults.teller import Customer, OwnAccount, Teller, new_operation
from microfin.ledger.account_number import check_digit

_CHAINED: Final = 10  # every tenth account is moved in chains
_CHAIN: Final = 6  # operations in a chain
_ABANDON: Final = 0.1
_NOBODY: Final = 0.03  # of the transfers go to an account that does not exist
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_LIFETIMES: Final = (2, 10, 3_600)  # seconds of a hold: some end while the round lasts
_ACTIONS: Final = (
    ("deposit", 30),
    ("withdraw", 20),
    ("transfer", 36),
    ("hold", 6),
    ("capture", 6),
    ("release", 2),
    ("burst", 2),
    ("open", 1),
    ("statement", 4),
    ("balance", 4),
    ("replay", 2),
    ("reuse", 1),
)


class Clients:
    """All clients of one round, who begin `rate` actions a second while nothing stalls."""

    def __init__(
        self, connections: Connections, accounts: Sequence[OwnAccount], rate: float, seed: str
    ) -> None:
        self.history = History()
        self.numbers = [it.number for it in accounts]
        self._teller = Teller(connections, self.history)
        self._accounts = accounts
        self._pause = len(accounts) / rate
        self._seed = seed
        self._give_up = float("inf")
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let all begin."""
        self._tasks = [
            asyncio.create_task(self._live(number, account))
            for number, account in enumerate(self._accounts)
        ]

    async def stop(self, patience: float) -> None:
        """Let all finish what they are doing, for at most `patience` seconds."""
        self._give_up = time.monotonic() + patience
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _live(self, number: int, account: OwnAccount) -> None:
        random = Random(f"{self._seed}/{number}")
        life = _Life(self, self._teller, account, random)
        await self.rest(random.uniform(0, self._pause))
        while not self._stopping.is_set():
            if number % _CHAINED == 0:
                await life.chain()
                await self.rest(random.expovariate(1 / (self._pause * _CHAIN)))
            else:
                await life.act()
                await self.rest(random.expovariate(1 / self._pause))

    async def rest(self, seconds: float) -> None:
        """Wait, but no longer than until the round ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    @property
    def given_up(self) -> bool:
        """Whether nobody is to wait any longer."""
        return time.monotonic() > self._give_up


class _Life:
    """What one client does."""

    def __init__(
        self, clients: Clients, teller: Teller, account: OwnAccount, random: Random
    ) -> None:
        self._clients = clients
        self._teller = teller
        self._account = account
        self._random = random
        self._last: Asked | None = None
        self._holds: list[Asked] = []

    async def act(self) -> None:
        """Do one thing."""
        names, weights = zip(*_ACTIONS, strict=True)
        action = self._random.choices(names, weights)[0]
        if action == "statement":
            await self._teller.read_statement(self._account)
        elif action == "balance":
            await self._teller.read_balance(self._account)
        elif action == "replay" and self._last is not None:
            await self._teller.attempt(self._last, self._account)
        elif action == "reuse" and self._last is not None and self._last.amount:
            await self._teller.reuse_key(self._last, self._account)
        elif action == "burst":
            await asyncio.gather(*(self._perform(self._draw("deposit")) for _ in range(3)))
        elif action in ("replay", "reuse"):
            await self._perform(self._draw("deposit"))
        else:
            await self._perform(self._draw(action))

    async def chain(self) -> None:
        """Send operations one after another, each as soon as the one before is acknowledged."""
        under_way: list[tuple[Asked, str]] = []
        amount = self._random.randint(1, 500)
        for number in range(_CHAIN):
            asked = self._new("withdraw" if number % 2 else "deposit", amount=amount)
            asked.asynchronous = True
            location = await self._until_acknowledged(asked)
            if location is None:
                break
            under_way.append((asked, location))
        for asked, location in under_way:
            if location:
                await self._follow(asked, location)

    def _draw(self, kind: str) -> Asked:
        amount = self._random.randint(1, 2_000)
        if kind == "open":
            return self._new("open")
        if kind in ("capture", "release"):
            return self._draw_on_hold(kind)
        if kind == "hold":
            receiver = self._receiver() if self._random.random() < 0.7 else ""
            asked = self._new("hold", amount=amount, counterparty=receiver)
            asked.lifetime = self._random.choice(_LIFETIMES)
            return asked
        if kind == "withdraw" and self._random.random() < 0.1:
            amount = self._random.randint(20_000, 90_000)
        if kind != "transfer":
            return self._new(kind, amount=amount)
        return self._new("transfer", amount=amount, counterparty=self._receiver())

    def _draw_on_hold(self, kind: str) -> Asked:
        """Take from one of the client's holds, or end it; a deposit if there is none."""
        if not self._holds:
            return self._draw("deposit")
        hold = self._random.choice(self._holds)
        amount = self._random.randint(1, max(1, hold.amount)) if kind == "capture" else 0
        asked = self._new(kind, amount=amount, counterparty=hold.counterparty * (kind == "capture"))
        asked.hold = hold.operation
        if self._random.random() < 0.3:
            self._holds.remove(hold)
        return asked

    def _receiver(self) -> str:
        if self._random.random() < _NOBODY:
            body = str(self._random.randint(10**10, 10**11 - 1))
            return body + check_digit(body)
        while True:
            number = self._random.choice(self._clients.numbers)
            if number != self._account.number:
                return number

    def _new(self, kind: str, amount: int = 0, counterparty: str = "") -> Asked:
        key = f"{self._random.getrandbits(96):024x}-{time.monotonic_ns():x}"
        asked = new_operation(kind, key, self._account, amount=amount, counterparty=counterparty)
        self._teller.history.asked.append(asked)
        return asked

    async def _perform(self, asked: Asked) -> None:
        """Send an operation until its end is known, or give it up while it is in doubt."""
        location = await self._until_acknowledged(asked, may_abandon=True)
        if location:
            await self._follow(asked, location)
        if asked.answered is not None and not asked.asynchronous:
            self._last = asked
            if asked.kind == "hold" and asked.answers[0].status == "settled":
                self._holds.append(asked)
            if asked.kind == "open" and asked.answers[0].status == "settled":
                self._clients.numbers.append(asked.answers[0].account)

    async def _until_acknowledged(self, asked: Asked, *, may_abandon: bool = False) -> str | None:
        """Repeat until a final answer ('') or a 202 (its Location); None where it was given up."""
        pause = _FIRST_PAUSE
        while True:
            result, location = await self._teller.attempt(asked, self._account)
            if result == "final":
                return ""
            if result == "accepted":
                return location
            if result == "unknown" and may_abandon and self._random.random() < _ABANDON:
                asked.abandoned = True
                return None
            if self._clients.given_up:
                return None
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _follow(self, asked: Asked, location: str) -> None:
        pause = _FIRST_PAUSE
        while not await self._teller.follow(asked, self._account, location):
            if self._clients.given_up:
                return
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)


async def sign_up(connections: Connections, name: str) -> Customer:
    """Make a user."""
    password = f"the password of {name}"
    body = f'{{"name":"{name}","email":"{name}@example.com","password":"{password}"}}'.encode()
    response = await _insist(connections, "/api/signup", body)
    return Customer(response["userId"], response["sessionId"])


async def open_account(connections: Connections, customer: Customer, key: str) -> OwnAccount:
    """Open an account for a customer."""
    headers = f"Idempotency-Key: {key}\r\n"
    response = await _insist(connections, "/api/accounts", b"{}", customer.session, headers)
    return OwnAccount(response["accountNumber"], customer)


async def _insist(
    connections: Connections, path: str, body: bytes, session: str = "", headers: str = ""
) -> dict[str, str]:
    """Send until it is done, before any fault."""
    for _ in range(20):
        try:
            response = await connections.ask("POST", path, session, body, headers)
        except NoAnswer:
            response = None
        if response is not None and response.status in (200, 201):
            return msgspec.json.decode(response.body, type=dict[str, str])
        await asyncio.sleep(0.5)
    raise RuntimeError(f"{path} does not work before any fault: {response}")
