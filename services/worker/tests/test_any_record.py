"""A record with any bytes is set aside or decided, and its neighbours are decided."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.wire import Command
from microfin.postgres.connections import connect_pool
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from support.postgres_ledger import make_ledger_databases
from support.worker_bench import Bench, working

ANNA = "a" * 32
NOW = time.time_ns() // 1_000_000
names = count()

Bytes = tuple[bytes | None, bytes | None]


def numbered(prefix: str) -> tuple[str, str]:
    """Return a fresh operation's id and the number that it would open."""
    operation = f"{prefix}{next(names):031x}"
    return operation, derive_account_number(operation, 0)


ANYBODYS, OTHER = numbered("e")[1], numbered("e")[1]
"""Accounts that strange records name; their neighbours use another one."""


def command(kind: str, leg: str = "request", account: str = ANYBODYS, **fields: Any) -> Command:
    return Command(
        kind=kind,  # type: ignore[arg-type]
        leg=leg,  # type: ignore[arg-type]
        operation=fields.pop("operation", None) or f"f{next(names):031x}",
        account=account,
        user=fields.pop("user", ANNA),
        reply="api/request",
        **fields,
    )


def changed(command: Command, **fields: Any) -> Bytes:
    """Return a command's record with fields of any type; `...` removes one."""
    built = msgspec.to_builtins(command) | fields
    value = msgspec.json.encode({name: it for name, it in built.items() if it is not ...})
    return command.account.encode(), value


def raw(command: Command, before: bytes, after: bytes) -> Bytes:
    value = wire.encode(command)
    assert before in value
    return command.account.encode(), value.replace(before, after)


def with_number(name: str, digits: str, **fields: Any) -> Bytes:
    """Return a deposit's record with an integer of any size."""
    asked = command("deposit", amount="1", **{name: 7, **fields})
    return raw(asked, b'"%s":7' % name.encode(), f'"{name}":{digits}'.encode())


def refund(currency: str, amount: str) -> Command:
    return command("transfer", "refund", counterparty=OTHER, amount=amount, currency=currency)


DEPOSIT = command("deposit", amount="1")
OPENED = {code: numbered("d")[::-1] for code in ("JPY", "BHD")}
"""An account of each of these currencies, and the operation that opens it."""

SET_ASIDE: dict[str, Bytes] = {
    "nested arrays": (ANYBODYS.encode(), b'{"v":1,"x":' + b"[" * 1_100 + b"]" * 1_100 + b"}"),
    "nested objects": (ANYBODYS.encode(), b'{"a":' * 1_100 + b"1" + b"}" * 1_100),
    "nested in a good command": raw(
        DEPOSIT, b'"v":1', b'"x":' + b"[" * 600 + b"]" * 600 + b',"v":1'
    ),
    "nested without an end": (ANYBODYS.encode(), b"[" * 900_000),
    "no uuid for a user": changed(DEPOSIT, user="not-a-uuid"),
    "NUL in the user": changed(DEPOSIT, user="\0"),
    "NUL in the counterparty": changed(DEPOSIT, counterparty="\0"),
    "NUL in the currency": changed(command("open"), currency="\0"),
    "NUL in the kind": changed(DEPOSIT, kind="dep\0osit"),
    "a long kind": changed(DEPOSIT, kind="x" * 900_000),
    "a kind of quotes": changed(DEPOSIT, kind="'\"\\,{}\x1b[2J"),
    "a lone surrogate": raw(DEPOSIT, b'"v":1', b'"v":1,"counterparty":"\\ud800"'),
    "no UTF-8": raw(DEPOSIT, b'"v":1', b'"v":1,"counterparty":"\xed\xa0\x80"'),
    "appended in a far year": with_number("appended", str(10**17)),
    "appended in the year 10000": with_number("appended", str(253_402_300_800_000)),
    "appended beyond 64 bits": with_number("appended", str(10**25)),
    "appended before 1970": with_number("appended", "-1"),
    "a generation beyond 64 bits": with_number("generation", "9" * 26),
    "a generation far below 0": with_number("generation", "-" + "9" * 26),
    "an attempt beyond 64 bits": with_number("attempt", "9" * 26),
    "a deadline beyond 64 bits": with_number("deadline", "9" * 26),
    "a deadline of 5,000 digits": with_number("deadline", "9" * 5_000),
    "a sender's balance beyond 64 bits": with_number("sender_balance", "9" * 26),
    "a sender's seq beyond 64 bits": with_number("sender_seq", "-" + "9" * 26),
    "an open of nobody": changed(
        command("open", account=numbered("c")[1], currency="EUR"), user=...
    ),
    "a refund of half a yen": changed(
        msgspec.structs.replace(refund("JPY", "0.5"), account=OPENED["JPY"][0])
    ),
    "a refund beyond 64 bits": changed(
        msgspec.structs.replace(refund("BHD", "9" * 16), account=OPENED["BHD"][0])
    ),
    "a key that is not the account": (b"\0" * 12, wire.encode(DEPOSIT)),
    "no key": (None, wire.encode(DEPOSIT)),
    "no value": (ANYBODYS.encode(), None),
    "nothing": (b"", b""),
    "a megabyte": (b"big", b"x" * 1_000_000),
    "a megabyte of brackets": (b"big", b"[]," * 330_000),
    "more than could be sent on": changed(DEPOSIT, reply="x" * wire.SIZE_LIMIT),
    "a foreign version": raw(DEPOSIT, b'"v":1', b'"v":1e3'),
}


@pytest.fixture
async def bench(platform: Platform) -> AsyncIterator[Bench]:
    name = f"any_record_{next(names)}"
    [database] = await make_ledger_databases(platform, name, 1, 1)
    url = platform.postgres_direct(0, database=database)
    pool = await connect_pool(url, CommonSettings())
    try:
        async with working(pool) as made:
            yield made
    finally:
        pool.terminate()


class Neighbour:
    """Puts deposits between strange records, and counts the deposits that were decided."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        operation, self.account = numbered("b")
        self.deposits: list[str] = []
        bench.log.write([self.record(command("open", account=self.account, operation=operation,
                                             currency="EUR"))], NOW)  # fmt: skip

    @staticmethod
    def record(asked: Command) -> Bytes:
        return asked.account.encode(), wire.encode(asked)

    def deposit(self) -> Bytes:
        asked = command("deposit", account=self.account, amount="0.01")
        self.deposits.append(asked.operation)
        return self.record(asked)

    async def surrounds(self, strange: list[Bytes], appended: int = NOW) -> list[int]:
        """Write the strange records among deposits, wait, and return their offsets."""
        log = self.bench.log
        first = len(log.records)
        log.write([it for record in strange for it in (self.deposit(), record)], appended)
        log.write([self.deposit()], NOW)
        await self.bench.decided()
        await self.bench.worker._answers.finish()
        rows = await self.bench.pool.fetch(
            "SELECT balance FROM accounts WHERE number = $1", self.account
        )
        assert [row["balance"] for row in rows] == [len(self.deposits)]
        assert self.bench.store.claims == 1, "the worker claimed anew"
        return [first + 1 + 2 * index for index in range(len(strange))]

    async def set_aside(self) -> dict[int, Any]:
        rows = await self.bench.pool.fetch("SELECT * FROM quarantine WHERE partition = 0")
        return {row["log_offset"]: row for row in rows}


async def test_what_cannot_be_decided_is_set_aside_and_its_neighbours_are_decided(
    bench: Bench,
) -> None:
    neighbour = Neighbour(bench)
    for code, (number, operation) in OPENED.items():
        asked = command("open", account=number, operation=operation, currency=code)
        bench.log.write([neighbour.record(asked)], NOW)
    for name, record in SET_ASIDE.items():
        [offset] = await asyncio.wait_for(neighbour.surrounds([record]), 40)
        kept = (await neighbour.set_aside()).get(offset)
        assert kept is not None, f"{name}: it was decided"
        assert (kept["key"], kept["value"]) == record, name
        assert 0 < len(kept["reason"]) <= wire.REASON_LIMIT, name
        assert kept["reason"].isprintable(), name
    strange = list(SET_ASIDE.values())
    offsets = await neighbour.surrounds(strange)
    assert set(offsets) <= (await neighbour.set_aside()).keys(), "all of them in one fetch"


@pytest.mark.parametrize("reported", [-1, 2**63 - 1, 253_402_300_800_000])
async def test_a_broker_that_reports_an_impossible_time(bench: Bench, reported: int) -> None:
    """A topic without LogAppendTime holds the times that its writers set."""
    neighbour = Neighbour(bench)
    offsets = await neighbour.surrounds([(b"garbage", b"garbage")], reported)
    assert set(offsets) == (await neighbour.set_aside()).keys()


# What records are made of --------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**26), 10**26)
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**15, 253_402_300_800_000])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\0", "'", '"\\', "{}", "a" * 32, "9" * 18, ANYBODYS, OTHER, "EUR", "XXX"])
)
JSON = st.recursive(
    SCALARS, lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=3), it)
)
GOOD = st.sampled_from(
    [
        lambda: command("open", account=derive_account_number(f"{next(names):032x}", 0),
                        currency="EUR"),
        lambda: command("deposit", amount="1"),
        lambda: command("withdraw", amount="9999999999999999"),
        lambda: command("transfer", counterparty=OTHER, amount="1"),
        lambda: command("set_state", state="frozen", user=""),
        lambda: command("transfer", "credit", counterparty=OTHER, amount="1", currency="EUR"),
        lambda: command("transfer", "refund", counterparty=OTHER, amount="1", currency="EUR",
                        reason="expired", at_account=OTHER),
    ]
)  # fmt: skip
FIELDS = st.sampled_from([*Command.__struct_fields__, "v"])


@st.composite
def mutated(draw: st.DrawFn) -> Bytes:
    """A good command, with fields of other values and types, or other bytes."""
    good: Command = draw(GOOD)()
    fields = draw(st.dictionaries(FIELDS, SCALARS | JSON | st.just(...), max_size=3))
    built = msgspec.to_builtins(good) | fields
    left = {name: it for name, it in built.items() if it is not ...}
    value = bytearray(json.dumps(left, ensure_ascii=draw(st.booleans())).encode(errors="replace"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        value[draw(st.integers(0, len(value) - 1))] = draw(st.integers(0, 255))
    key = draw(st.sampled_from([good.account.encode()] * 5 + [None, b"", b"\xff"]))
    return key, bytes(value)


RECORDS = (
    mutated()
    | mutated()
    | st.tuples(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=200))
    | st.tuples(st.just(ANYBODYS.encode()), JSON.map(lambda it: json.dumps(it).encode()))
)


def stops_by_design(record: Bytes) -> bool:
    """Return whether a newer wire version or a later routing stops the partition, as it must."""
    try:
        return wire.decode(*record).generation > 1
    except wire.NewerVersion:
        return True
    except wire.Undecodable:
        return False


async def test_random_records_are_decided_or_set_aside(bench: Bench) -> None:
    neighbour, loop = Neighbour(bench), asyncio.get_running_loop()
    for number in (ANYBODYS, OTHER):
        asked = command("open", account=number, currency="EUR", operation=f"a{next(names):031x}")
        bench.log.write([neighbour.record(asked)], NOW)

    @settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(RECORDS.filter(lambda it: not stops_by_design(it)), min_size=1, max_size=5))
    def check(strange: list[Bytes]) -> None:
        asyncio.run_coroutine_threadsafe(decided(strange), loop).result()

    async def decided(strange: list[Bytes]) -> None:
        offsets = await neighbour.surrounds(strange)
        kept = await neighbour.set_aside()
        for offset, record in zip(offsets, strange, strict=True):
            if offset in kept:
                assert (kept[offset]["key"], kept[offset]["value"]) == record
            else:
                wire.decode(*record)

    await asyncio.to_thread(check)
