"""The simulated shard means what PostgreSQL means: both are driven through the same calls.

`PostgresStore`, `PostgresRouting` and `reading` are the real ones on both sides; the results, the
errors and the tables in the end must be the same.
"""

from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

import microfin_worker.postgres_store
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.decision import account_numbers, decide, leg_keys
from microfin.ledger.hold_rules import hold_ids
from microfin.ledger.operation import operation_id
from microfin.ledger.records import Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command
from microfin.postgres import queries
from microfin.postgres.connections import connect_pool
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.growth import PostgresRouting
from microfin_tools.growth.postgres_routing import AnotherGrowth, NotActivated
from microfin_worker.batch import PlaceLost, RoutingChanged, commit_nothing
from microfin_worker.ports import (
    BatchWrite,
    Fenced,
    PartitionRow,
    Place,
    PlaceChanged,
    Quarantined,
    RepeatsFound,
    StaleAccounts,
    StoreError,
    origin,
)
from microfin_worker.postgres_store import PostgresStore
from simulation.batch_writing import PlacedWrite
from simulation.connections import SimulatedPool
from simulation.database import Database
from simulation.effects import Effects
from simulation.history import History
from simulation.network import Network
from simulation.plan import Plan, Tuning
from simulation.product_edges import simulated_product
from simulation.sessions import Tables
from simulation.virtual_loop import STARTS_AT, Process, VirtualLoop
from support.postgres_ledger import make_ledger_databases

STEPS = 400
DECIDED = 2  # partitions, as the decisions see it: what is of partition 1 goes to the outbox
USER = "a" * 32
OPENED = [operation_id(USER, f"open{number}", "open", "") for number in range(6)]
ACCOUNTS = [derive_account_number(operation, 0) for operation in OPENED]
EXPECTED = (
    AnotherGrowth, Fenced, LookupError, NotActivated, PlaceChanged, RepeatsFound, StaleAccounts,
    asyncpg.UniqueViolationError, asyncpg.CheckViolationError, asyncpg.DataError,
)  # fmt: skip
MISFITS: list[dict[str, Any]] = [
    {"needed": 2**63}, {"available": -(2**63) - 1}, {"amount": 0}, {"amount": 10**30},
    {"time": 9_224_318_016_000_000}, {"time": -210_866_803_200_001}, {"time": 2**63},
    {"counterparty": "\0"}, {"at_account": "1\0"}, {"currency": "\0"}, {"user": "not-a-uuid"},
    {"operation": "1"}, {"status": "settled"}, {"leg": "debit"}, {"kind": "lend"},
    {"hold": "1"}, {"held": 2**63}, {"hold_left": 2**63}, {"ends": 2**63},
    {"ends": 9_224_318_016_000_000},
]  # fmt: skip
MISFIT_RECORDS: list[dict[str, Any]] = [{"reason": "\0"}, {"time": 2**62}, {"time": 2**63}]
FITS: list[dict[str, Any]] = [
    {"needed": 2**63 - 1}, {"available": -(2**63)}, {"time": 9_223_372_036_000_000},
    {"time": -210_866_803_200_000}, {"counterparty": "'\"\\,{}" * 9_000}, {"currency": "X" * 500},
]  # fmt: skip


def expected(failure: Exception) -> BaseException:
    """Return what the database itself raised, if the drive may meet it."""
    error = origin(failure)
    if not isinstance(error, EXPECTED):
        raise failure
    return error


class Drive:
    """Random calls on one shard of two partitions; what they return is written down."""

    def __init__(self, pool: Any, seed: int) -> None:
        self.random = Random(seed)
        self.pool = pool
        self.stores = [PostgresStore(pool, partition, 1) for partition in range(3)]
        self.routing = PostgresRouting(pool, 0)
        self.answers: list[Any] = []
        self.rows: dict[int, PartitionRow] = {}
        self.offset = 0
        self.operations: list[str] = []
        self.holds: dict[str, str] = {}
        self.token: UUID | None = None

    async def run(self) -> list[Any]:
        for step in range(STEPS):
            call = self.random.choice(
                [self.claim, self.commit, self.commit, self.commit, self.commit_in_transaction,
                 self.commit_in_transaction, self.touch, self.look, self.grow]
            )  # fmt: skip
            try:
                self.answers.append((step, call.__name__, await call()))
            except (StoreError, *EXPECTED) as failure:
                error = expected(failure)
                constraint = getattr(error, "constraint_name", None)
                self.answers.append((step, call.__name__, type(error).__name__, constraint))
                if isinstance(error, PlaceChanged):
                    self.rows[0] = (await self.stores[0].claim()).row
        return self.answers

    async def claim(self) -> Any:
        partition = self.random.choice((0, 0, 0, 1, 2))
        row = self.rows.get(partition)
        held = self.random.choice([None, None, row.epoch if row else None, 1])
        claim = await self.stores[partition].claim(held)
        self.rows[partition] = claim.row
        return claim

    def place(self) -> Place:
        """Return where a batch is decided from: mostly where the row is."""
        known = self.rows.get(0) or PartitionRow(0, 1, 0, None, Routing(1, 1))
        row = known
        match self.random.randrange(12):
            case 0:
                row = msgspec.structs.replace(known, epoch=known.epoch + 1)
            case 1:
                row = msgspec.structs.replace(known, next_offset=known.next_offset + 1)
            case 2:
                row = msgspec.structs.replace(known, routing=Routing(known.routing.generation, 7))
        return Place(row.partition, row.epoch, row.next_offset, row.routing)

    def commands(self, place: Place) -> list[Received]:
        batch = []
        for number in range(self.random.randint(1, 4)):
            offset = place.next_offset + number
            if self.random.random() < 0.05:
                batch.append(Received(offset, 1_000 + offset, None, "not a command"))
            else:
                batch.append(Received(offset, 1_000 + offset, self.command()))
        return batch

    def command(self) -> Command:
        index = self.random.randrange(len(ACCOUNTS))
        if self.random.random() < 0.25:
            return Command(
                kind="open", leg="request", operation=OPENED[index], account=ACCOUNTS[index],
                user=USER, currency="EUR",
            )  # fmt: skip
        if self.holds and self.random.random() < 0.25:
            return self.on_hold()
        kind = self.random.choice(["deposit", "withdraw", "transfer", "hold"])
        key = str(self.random.randrange(60))
        operation = operation_id(USER, key, kind, ACCOUNTS[index])  # type: ignore[arg-type]
        return Command(
            kind=kind,  # type: ignore[arg-type]
            leg="request",
            operation=operation,
            account=ACCOUNTS[index],
            user=USER,
            counterparty=derive_account_number(key, 0) if kind == "transfer" else "",
            amount=str(self.random.randint(1, 9)),
            lifetime=1 if kind == "hold" else 0,
        )

    def on_hold(self) -> Command:
        hold, account = self.random.choice(sorted(self.holds.items()))
        kind = self.random.choice(["capture", "capture", "release"])
        operation = operation_id(USER, str(self.random.randrange(60)), kind, account)
        return Command(
            kind=kind, leg="request", operation=operation, account=account, user=USER, hold=hold,
            amount="1" if kind == "capture" else "", appended=1,
        )  # fmt: skip

    async def commit(self) -> Any:
        """Commit by one statement, as what was decided ahead: repeats are not looked up."""
        place = self.place()
        batch = self.commands(place)
        numbers = account_numbers(batch, 0, Routing(1, DECIDED))
        async with self.stores[0].transaction() as transaction:
            holds = await transaction.holds(hold_ids(batch))
            accounts = await transaction.accounts(numbers)
        write = self.write(place, batch, accounts, {}, holds)
        await self.stores[0].commit(place, write)
        self.advance(place, write)
        return len(batch)

    async def commit_in_transaction(self) -> Any:
        place = self.place()
        batch = self.commands(place)
        async with self.stores[0].transaction() as transaction:
            row = await transaction.lock()
            known = await transaction.known_outcomes(leg_keys(batch))
            holds = await transaction.holds(hold_ids(batch))
            accounts = await transaction.accounts(
                account_numbers(batch, 0, Routing(1, DECIDED), holds)
            )
            write = self.write(place, batch, accounts, known, holds)
            await transaction.write(place, write)
        self.advance(place, write)
        return row, sorted(known), sorted(accounts), sorted(holds)

    def write(self, place: Place, batch: Any, accounts: Any, known: Any, holds: Any) -> BatchWrite:
        routing = Routing(place.routing.generation, DECIDED)
        decisions = decide(0, routing, accounts, known, batch, holds)
        stale = self.random.random() < 0.05
        return BatchWrite(
            decisions=decisions,
            versions={number: it.version + stale for number, it in accounts.items()},
            quarantined=[
                Quarantined(it.offset, it.time, None, b"?", it.fault)
                for it in decisions.quarantined
            ],
            sent=[],
            next_offset=batch[-1].offset + 1,
            fingerprint=b"%d" % batch[-1].offset,
        )

    def advance(self, place: Place, write: BatchWrite) -> None:
        self.operations += [outcome.operation for outcome in write.decisions.outcomes]
        self.holds |= {it.operation: it.account for it in write.decisions.holds.values()}
        self.rows[0] = PartitionRow(
            0, place.epoch, write.next_offset, write.fingerprint, place.routing
        )

    async def touch(self) -> Any:
        row = self.rows.get(0) or PartitionRow(0, 1, 0, None, Routing(1, 1))
        place = Place(0, row.epoch, row.next_offset, row.routing)
        sent = [(self.random.randrange(60), 0) for _ in range(4)]
        try:
            await commit_nothing(self.stores[0], place, row.fingerprint, sent)
        except (Fenced, PlaceLost, RoutingChanged) as refusal:
            return repr(refusal)
        return "touched"

    async def look(self) -> Any:
        asked = self.random.sample(self.operations, min(4, len(self.operations)))
        outcomes = await queries.legs(self.pool, [*asked, "f" * 32])
        state = await self.routing.state()
        offsets = {number: it.next_offset for number, it in state.partitions.items()}
        due = await self.stores[0].due_holds(None, 3)
        page = await self.stores[0].due_holds(due.holds[0] if due.holds else None, 500)
        found = sorted(outcomes, key=lambda it: (it.operation, it.leg))
        return found, state.routing, offsets, due, page

    async def grow(self) -> Any:
        state = await self.routing.state()
        intended = Routing(state.routing.generation + 1, state.routing.partition_count + 1)
        token = UUID(int=self.random.getrandbits(128))
        match self.random.randrange(6):
            case 0 | 1:
                await self.routing.prepare(state.routing, intended, token)
                self.token = token
            case 2:
                await self.routing.prepare(Routing(99, 7), intended, token)
            case 3:
                await self.routing.withdraw(self.token or token)
            case 4:
                await self.routing.activate(
                    state.routing, intended, self.token or token, {0: 10**9}
                )
            case _:
                # The generation goes up, as the decisions of this test do not look at it.
                await self.routing.activate(state.routing, intended, self.token or token, {0: 0})
        return await self.routing.state() and None


class DriveMisfits(Drive):
    """Commits outcomes with values that the columns hold or do not, and says what came of each."""

    async def run(self) -> list[Any]:
        self.rows[0] = (await self.stores[0].claim()).row
        for changes in [*MISFITS, *FITS]:
            self.answers.append((changes, await self.commit_changed(changes, {})))
        for strange in MISFIT_RECORDS:
            self.answers.append((strange, await self.commit_changed({}, strange)))
        return self.answers

    async def commit_changed(self, changes: dict[str, Any], strange: dict[str, Any]) -> Any:
        row = self.rows[0]
        place = Place(row.partition, row.epoch, row.next_offset, row.routing)
        command = Command(
            kind="deposit", leg="request", operation=f"{len(self.answers):032x}", amount="1",
            account=next(it for it in ACCOUNTS if partition_of(it, DECIDED) == 0),
        )  # fmt: skip
        write = self.write(place, [Received(row.next_offset, 1_000, command)], {}, {}, {})
        outcomes = write.decisions.outcomes
        outcomes[0] = msgspec.structs.replace(outcomes[0], **changes)
        record = Quarantined(row.next_offset, 1_000, None, None, "why")
        write = msgspec.structs.replace(
            write, quarantined=[msgspec.structs.replace(record, **strange)] if strange else []
        )
        try:
            await self.stores[0].commit(place, write)
        except (StoreError, *EXPECTED) as failure:
            return type(expected(failure)).__name__
        self.advance(place, write)
        return "accepted"


async def tables_of(pool: Any) -> dict[str, Any]:
    async with pool.acquire() as connection:
        partitions = await connection.fetch(
            "SELECT partition, next_offset, fingerprint, epoch, generation, partition_count"
            " FROM partitions ORDER BY partition"
        )
        accounts = await connection.fetch(
            "SELECT number, balance, held, state, seq, version FROM accounts ORDER BY number"
        )
        entries = await connection.fetch(
            "SELECT account, seq, amount, balance_after FROM entries ORDER BY account, seq"
        )
        contra = await connection.fetch(
            "SELECT partition, contra, currency, balance::bigint FROM contra_balances ORDER BY 1, 2"
        )
        outbox = await connection.fetch(
            "SELECT partition, log_offset, step, command FROM outbox ORDER BY 1, 2, 3"
        )
        quarantine = await connection.fetch(
            "SELECT partition, log_offset FROM quarantine ORDER BY 1, 2"
        )
        holds = await connection.fetch(
            "SELECT replace(operation_id::text, '-', ''), account, receiver, amount, amount_left"
            " FROM holds ORDER BY 1"
        )
    found = [partitions, accounts, entries, contra, outbox, quarantine, holds]
    return {str(number): [tuple(row) for row in rows] for number, rows in enumerate(found)}


def simulated_tables(tables: Tables) -> dict[str, Any]:
    columns = (
        "partition", "next_offset", "fingerprint", "epoch", "generation", "partition_count"
    )  # fmt: skip
    account_columns = ("number", "balance", "held", "state", "seq", "version")
    found: list[Any] = [
        [tuple(row[it] for it in columns) for _, row in sorted(tables.partitions.items())],
        [tuple(row[it] for it in account_columns) for _, row in sorted(tables.accounts.items())],
        [(*key, it.amount, it.balance_after) for key, it in sorted(tables.entries.items())],
        [(*key, balance) for key, balance in sorted(tables.contra.items())],
        [(*key, command) for key, command in sorted(tables.outbox.items())],
        sorted(tables.quarantine),
        [
            (hold.operation, hold.account, hold.receiver, hold.amount, hold.left)
            for _, hold in sorted(tables.holds.items())
        ],
    ]
    return {str(number): rows for number, rows in enumerate(found)}


def drive_simulated(seed: int, drive: type[Drive] = Drive) -> tuple[list[Any], dict[str, Any]]:
    loop = VirtualLoop(Random(seed), 1_000_000, STARTS_AT + 10_000)
    history = History(loop.time)
    plan = Plan(seed, 1, 1, 1, Tuning(1, 1, 1, 0.0, 1.0, 1.0, 60.0), [], [], [], [])
    network = Network(loop, plan, history)
    tables = Tables(0, 1, Routing(1, 1))
    database = Database(loop, network, history, tables, Effects(history))
    pool = SimulatedPool(database, Process(loop, "driver"))
    try:
        with simulated_product(loop, seed, [database], 1):
            assert microfin_worker.postgres_store.batch_statement is PlacedWrite
            answers = loop.run(drive(pool, seed).run())
    finally:
        loop.take_apart()
    return answers, simulated_tables(tables)


@pytest.mark.parametrize("seed", range(4))
async def test_the_simulated_shard_is_as_postgresql(platform: Platform, seed: int) -> None:
    [name] = await make_ledger_databases(platform, f"shard_{seed}", 1, 1)
    url = platform.postgres_direct(0, database=name)
    pool = await connect_pool(url, CommonSettings())
    try:
        real = await Drive(pool, seed).run()
        expected = await tables_of(pool)
    finally:
        pool.terminate()
    simulated, tables = drive_simulated(seed)
    for ours, theirs in zip(simulated, real, strict=True):
        assert ours == theirs
    assert tables == expected
    kinds = {answer[2] for answer in real if isinstance(answer[2], str)}
    assert {"PlaceChanged", "RepeatsFound", "StaleAccounts", "Fenced"} <= kinds, kinds
    assert {"AnotherGrowth", "NotActivated"} <= kinds, kinds


async def test_the_simulated_shard_refuses_what_postgresql_refuses(
    platform: Platform,
) -> None:
    [name] = await make_ledger_databases(platform, "shard_misfits", 1, 1)
    pool = await connect_pool(platform.postgres_direct(0, database=name), CommonSettings())
    try:
        real = await DriveMisfits(pool, 0).run()
    finally:
        pool.terminate()
    simulated, _ = drive_simulated(0, DriveMisfits)
    assert simulated == real
    refused = len(MISFITS) + len(MISFIT_RECORDS)
    assert [answer for _, answer in real].count("accepted") == len(real) - refused == len(FITS)
