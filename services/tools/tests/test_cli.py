"""The command line as a shell runs it, on real databases, a real topic and real workers."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

import aiokafka
import asyncpg
import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from microfin.kafka.producer import CommandProducer
from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import Kind, Operation, operation_id
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command
from microfin.postgres import queries
from microfin.postgres.connections import Pool, connect_shards
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.cli.log import Bounds, Trim, plan
from microfin_tools.cli.log_ends import KafkaFingerprints, KafkaLogEnds
from support.cli import microfin
from support.ports import free_port
from support.postgres_ledger import PostgresLedger, make_ledger_databases

ANNA = "a" * 32
PARTITIONS = 2


class Bank:
    """A ledger with its own topic, and the workers that were started."""

    def __init__(self, platform: Platform, name: str, database: str) -> None:
        self.platform = platform
        self.database = database
        self.topic = f"{name}.commands"
        self.operator = platform.environment("operator", database, self.topic)
        self.settings = CommonSettings(
            databases=self.operator["MICROFIN_DATABASES"],
            kafka=self.operator["MICROFIN_KAFKA"],
            topic=self.topic,
        )
        self.producer = CommandProducer(self.settings, "test")
        self.pools: list[Pool] = []
        self.workers: list[Process] = []
        self.keys = 0

    async def open(self) -> None:
        await self.platform.create_topic(self.topic, PARTITIONS)
        await self.producer.start()
        self.pools = await connect_shards(self.settings.database_urls, self.settings)

    async def start_worker(self, partition: int) -> None:
        worker = self.platform.environment("worker", self.database, self.topic)
        port = free_port()
        self.workers.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "microfin_worker"),
                env={
                    **os.environ,
                    **worker,
                    "MICROFIN_PARTITION": str(partition),
                    "MICROFIN_WORKER_PORT": str(port),
                },
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def close(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            await worker.wait()
        await self.producer.stop()
        for pool in self.pools:
            pool.terminate()

    async def send(self, command: Command) -> None:
        await self.producer.send(partition_of(command.account, PARTITIONS), command)

    async def decided(self, operation: str) -> Operation:
        """Return the operation once it is decided for good."""
        async with asyncio.timeout(60):
            while True:
                found = (await queries.operations(self.pools, [operation])).get(operation)
                if found is not None and found.operation.final:
                    return found.operation
                await asyncio.sleep(0.05)

    async def opened(self, partition: int = 0, amount: str = "") -> str:
        """Open an account on a partition and put money in."""
        while True:
            self.keys += 1
            operation = operation_id(ANNA, str(self.keys), "open", "")
            number = derive_account_number(operation, 0)
            if partition_of(number, PARTITIONS) == partition:
                break
        await self.send(
            Command(
                kind="open",
                leg="request",
                operation=operation,
                account=number,
                user=ANNA,
                currency="EUR",
            )
        )
        await self.decided(operation)
        if amount:
            await self.asked("deposit", number, amount)
        return number

    async def asked(self, kind: Kind, number: str, amount: str, to: str = "") -> str:
        """Ask for an operation, wait until it is decided, and return its id."""
        self.keys += 1
        operation = operation_id(ANNA, str(self.keys), kind, number)
        await self.send(
            Command(
                kind=kind,
                leg="request",
                operation=operation,
                account=number,
                user=ANNA,
                amount=amount,
                counterparty=to,
            )
        )
        await self.decided(operation)
        return operation

    async def execute(self, statement: str, *arguments: object) -> None:
        connection = await asyncpg.connect(
            self.platform.postgres_direct(0, database=self.database), ssl=False
        )
        await connection.execute(statement, *arguments)
        await connection.close()


async def make_bank(platform: Platform, name: str) -> Bank:
    (database,) = await make_ledger_databases(platform, name, 1, PARTITIONS)
    bank = Bank(platform, name, database)
    await bank.open()
    return bank


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank(platform: Platform) -> AsyncIterator[Bank]:
    """A ledger whose workers run."""
    made = await make_bank(platform, "cli")
    for partition in range(PARTITIONS):
        await made.start_worker(partition)
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def idle_bank(platform: Platform) -> AsyncIterator[Bank]:
    """A ledger without workers; what is decided was decided by a PostgresLedger."""
    made = await make_bank(platform, "cli_idle")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def ledger_of(bank: Bank) -> AsyncIterator[PostgresLedger]:
    url = bank.platform.postgres_direct(0, "microfin_worker", bank.database)
    async with PostgresLedger([url], PARTITIONS) as ledger:
        yield ledger


async def test_help_teaches() -> None:
    whole = await microfin({}, "--help")
    assert whole.code == 0
    assert "MICROFIN_DATABASES_DIRECT" in whole.output
    for name in ("migrate", "audit", "account", "quarantine", "outbox", "log", "recover", "user"):
        assert name in whole.output
    for command in (
        ["account", "freeze"],
        ["quarantine", "replay"],
        ["log", "trim"],
        ["recover", "check"],
        ["recover", "prepare"],
        ["recover", "verify"],
        ["audit"],
    ):
        ran = await microfin({}, *command, "--help")
        assert ran.code == 0
        assert "Example" in ran.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit"], "MICROFIN_DATABASES is not set"),
        (["migrate"], "MICROFIN_DATABASES_DIRECT is not set"),
        (["user", "create", "a@b.example", "--name", "A", "--password-stdin"], "DIRECT is not set"),
        (["account", "show", "123"], "right check digit"),
        (["operation", "show", "xyz"], "32 hexadecimal digits"),
        (["recover", "check", "--shard", "0"], "DIRECT is not set"),
        (["user", "create", "a@b.example", "--name", "A", "--id", "me"], "A user's id has 32"),
        (["quarantine", "replay"], "PARTITION and OFFSET, or --all"),
        (["quarantine", "replay", "1"], "PARTITION and OFFSET, or --all"),
        (["quarantine", "replay", "1", "2", "--all"], "PARTITION and OFFSET, or --all"),
    ],
)
async def test_wrong_use_is_explained(arguments: list[str], said: str) -> None:
    ran = await microfin({}, *arguments, typed="a password\n")
    assert ran.code == 2
    assert said in ran.errors
    assert not ran.output


async def test_a_wrong_setting_is_named() -> None:
    ran = await microfin({"MICROFIN_DATABASE_TIMEOUT": "-1"}, "audit")
    assert ran.code == 2
    assert "MICROFIN_DATABASE_TIMEOUT" in ran.errors


async def test_a_url_that_is_none_is_named() -> None:
    ran = await microfin({"MICROFIN_DATABASES": "nonsense"}, "routing", "show")
    assert ran.code == 2
    assert "MICROFIN_DATABASES" in ran.errors
    assert "postgresql://" in ran.errors


async def test_a_database_that_is_away_is_said_so() -> None:
    away = "postgresql://microfin:x@127.0.0.1:1/microfin"
    settings = {"MICROFIN_DATABASES": away, "MICROFIN_DATABASES_DIRECT": away}
    for command in (["audit"], ["migrate"], ["routing", "show"], ["outbox", "list"]):
        ran = await microfin(settings, *command)
        assert ran.code == 2
        assert "is it running" in ran.errors


async def test_migrate_makes_all_shards_and_refuses_another_order(
    platform: Platform,
) -> None:
    names = ["cli_migrated_a", "cli_migrated_b"]
    for name in names:
        await platform.create_database(name)
    urls = [platform.postgres_direct(0, database=name) for name in names]
    direct = {"MICROFIN_DATABASES_DIRECT": " ".join(urls)}

    wrong = await microfin(direct, "migrate", "--partitions", "3")
    assert wrong.code == 2
    assert "multiple" in wrong.errors

    for _ in range(2):
        ran = await microfin(direct, "migrate", "--json")
        assert ran.code == 0, ran.errors
        assert [row["shard"] for row in ran.json()] == [0, 1]
    shown = (await microfin(direct, "routing", "show", "--json")).json()
    assert [row["partitions"] for row in shown["shards"]] == [4, 4]
    assert shown["partitions"] == []

    turned = await microfin({"MICROFIN_DATABASES_DIRECT": " ".join(reversed(urls))}, "migrate")
    assert turned.code == 2
    assert "same order" in turned.errors


async def test_migrate_refuses_a_database_that_is_not_in_utf8(platform: Platform) -> None:
    """In SQL_ASCII drivers answer in bytes, so that even SQLAlchemy's first question fails."""
    name = "cli_not_in_utf8"
    superuser = await asyncpg.connect(platform.postgres_direct(0, "postgres", "postgres"))
    try:
        await superuser.execute(
            f"CREATE DATABASE {name} OWNER microfin TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    finally:
        await superuser.close()
    url = platform.postgres_direct(0, database=name)

    ran = await microfin({"MICROFIN_DATABASES_DIRECT": url}, "migrate")

    assert ran.code == 2
    assert f"database {name} is encoded in SQL_ASCII" in ran.errors
    assert "ENCODING 'UTF8'" in ran.errors
    assert "Traceback" not in ran.errors
    owner = await asyncpg.connect(url)
    try:
        assert await owner.fetchval("SELECT to_regclass('routing')") is None
    finally:
        await owner.close()


async def test_audit_says_whether_all_holds(platform: Platform) -> None:
    (database,) = await make_ledger_databases(platform, "cli_audited", 1, PARTITIONS)
    direct = platform.postgres_direct(0, database=database)
    environment = {"MICROFIN_DATABASES": platform.postgres_pooled(0, "microfin_auditor", database)}
    worker = platform.postgres_direct(0, "microfin_worker", database)
    async with PostgresLedger([worker], PARTITIONS) as ledger:
        number = ledger.open(ANNA, "EUR", 0)
        ledger.request("deposit", number, user=ANNA, amount="10")
        await ledger.drain()

    people = await microfin(environment, "audit", "--at-rest")
    assert people.code == 0, people.errors
    assert "All invariants hold." in people.output
    assert people.errors == ""

    whole = await microfin(environment, "audit", "--json", "--since")
    assert whole.code == 0, whole.errors
    report = whole.json()
    assert report["ok"] is True
    assert report["violations"] == []
    assert report["checked"] == {"accounts": 1, "entries": 1, "outcomes": 2, "operations": 2}
    assert report["mode"] == "full"
    assert (await microfin(environment, "audit", "--json", "--since")).json()["mode"] == "since"

    connection = await asyncpg.connect(direct, ssl=False)
    await connection.execute("UPDATE accounts SET balance = 1")
    await connection.close()
    broken = await microfin(environment, "audit", "--json")
    assert broken.code == 1
    assert broken.json()["ok"] is False
    assert {found["invariant"] for found in broken.json()["violations"]} == {1, 3}
    people = await microfin(environment, "audit")
    assert people.code == 1
    assert "Invariant 3 (shard 0): the balance is not that after the last entry" in people.output
    assert number in people.output


async def test_an_account_is_shown_frozen_opened_and_closed(bank: Bank) -> None:
    number = await bank.opened(amount="12.5")
    run = bank.operator

    shown = (await microfin(run, "account", "show", number, "--json")).json()
    assert shown["balance"] == "12.50"
    assert shown["state"] == "open"
    assert [entry["amount"] for entry in shown["entries"]] == ["12.50"]
    assert number in (await microfin(run, "account", "show", number)).output

    frozen = await microfin(run, "account", "freeze", number, "--key", "ticket", "--json")
    assert frozen.code == 0, frozen.errors
    assert frozen.json()["status"] == "settled"
    again = await microfin(run, "account", "freeze", number, "--key", "ticket", "--json")
    assert again.code == 0
    assert again.json() == frozen.json()
    assert (await microfin(run, "account", "show", number, "--json")).json()["state"] == "frozen"
    other = await microfin(run, "account", "unfreeze", number, "--key", "ticket")
    assert other.code == 1
    assert "nothing was done" in other.errors
    assert (await microfin(run, "account", "show", number, "--json")).json()["state"] == "frozen"
    repeated = await microfin(run, "account", "freeze", number, "--json")
    assert repeated.code == 1
    assert repeated.json()["reason"] == "state_unchanged"

    full = await microfin(run, "account", "close", number)
    assert full.code == 1
    assert "balance_not_zero" in full.output
    assert (await microfin(run, "account", "unfreeze", number)).code == 0
    await bank.asked("withdraw", number, "12.5")
    closed = await microfin(run, "account", "close", number, "--wait", "0", "--json")
    assert closed.code == 0
    assert closed.json()["status"] == "accepted"
    await bank.decided(closed.json()["operation"])
    assert (await microfin(run, "account", "show", number, "--json")).json()["state"] == "closed"


async def test_an_unknown_account_is_said_so(bank: Bank) -> None:
    number = derive_account_number("never", 0)
    shown = await microfin(bank.operator, "account", "show", number)
    assert (shown.code, shown.errors) == (1, f"There is no account {number}.\n")
    frozen = await microfin(bank.operator, "account", "freeze", number, "--json")
    assert (frozen.code, frozen.json()["reason"]) == (1, "account_not_found")


async def test_an_operation_is_shown_with_its_legs(bank: Bank) -> None:
    source, destination = await bank.opened(0, "5"), await bank.opened(1)
    transfer = await bank.asked("transfer", source, "2", destination)
    shown = (await microfin(bank.operator, "operation", "show", transfer, "--json")).json()
    assert shown["status"] == "settled"
    assert [leg["leg"] for leg in shown["legs"]] == ["request", "credit"]
    assert "debited" in (await microfin(bank.operator, "operation", "show", transfer)).output
    unknown = await microfin(bank.operator, "operation", "show", "0" * 32)
    assert unknown.code == 1
    assert "No shard has decided" in unknown.errors


async def test_without_a_worker_the_outcome_can_be_looked_up_later(idle_bank: Bank) -> None:
    number = derive_account_number("anything", 0)
    ran = await microfin(idle_bank.operator, "account", "freeze", number, "--wait", "1")
    assert ran.code == 1
    assert "is it running? Try again with `microfin operation show" in ran.errors


async def test_kafka_that_is_away_is_said_so(bank: Bank) -> None:
    environment = {**bank.operator, "MICROFIN_KAFKA": "127.0.0.1:1"}
    ran = await microfin(environment, "log", "trim", "--dry-run")
    assert ran.code == 2
    assert "MICROFIN_KAFKA" in ran.errors
    assert len(ran.errors.splitlines()) == 1


async def test_the_auditor_gets_the_ends_of_the_log(bank: Bank) -> None:
    number = await bank.opened(0)
    await bank.asked("deposit", number, "1")
    ends = await KafkaLogEnds(bank.settings)()
    assert ends is not None
    assert sorted(ends) == [0, 1]
    assert ends[0] >= 2
    away = bank.settings.model_copy(update={"kafka": "127.0.0.1:1"})
    assert await KafkaLogEnds(away)() is None


async def test_the_auditor_knows_the_log_again(bank: Bank) -> None:
    for partition in range(PARTITIONS):
        await bank.opened(partition)
    audit = await microfin(bank.operator, "audit", "--json")
    assert audit.code == 0, audit.output

    places = dict(await bank.pools[0].fetch("SELECT partition, next_offset FROM partitions"))
    marks = dict(await bank.pools[0].fetch("SELECT partition, fingerprint FROM partitions"))
    read = KafkaFingerprints(bank.settings)
    assert await read({it: offset - 1 for it, offset in places.items()}) == marks
    assert await read(dict.fromkeys(places, 10**6)) == {}  # none, as where it was trimmed
    away = bank.settings.model_copy(update={"kafka": "127.0.0.1:1"})
    assert await KafkaFingerprints(away)(places) == {}

    change = "UPDATE partitions SET fingerprint = $1 WHERE partition = 0"
    await bank.execute(change, b"another")
    audit = await microfin(bank.operator, "audit", "--json")
    await bank.execute(change, marks[0])
    assert audit.code == 1
    (violation,) = audit.json()["violations"]
    assert violation["invariant"] == 5
    assert violation["rows"][0]["next_offset"] == places[0]


async def test_routing_is_shown_with_its_partitions(bank: Bank) -> None:
    await bank.opened(0)
    await bank.opened(1)
    shown = (await microfin(bank.operator, "routing", "show", "--json")).json()
    assert shown["shards"][0]["partitions"] == PARTITIONS
    assert [row["partition"] for row in shown["partitions"]] == [0, 1]
    assert all(row["next_offset"] > 0 and row["epoch"] >= 1 for row in shown["partitions"])
    assert "next_offset" in (await microfin(bank.operator, "routing", "show")).output


async def test_quarantined_records_are_listed_and_replayed_once(bank: Bank) -> None:
    run = bank.operator
    garbage = aiokafka.AIOKafkaProducer(bootstrap_servers=bank.settings.kafka)
    await garbage.start()
    sent = await garbage.send_and_wait(bank.topic, b"\xffgarbage", key=b"x", partition=0)
    await garbage.stop()
    # A refund for an account that is not there (yet).
    operation = operation_id(ANNA, "late", "open", "")
    number = derive_account_number(operation, 0)
    partition = partition_of(number, PARTITIONS)
    refund = Command(
        kind="transfer",
        leg="refund",
        operation="f" * 32,
        account=number,
        counterparty=derive_account_number("elsewhere", 0),
        user=ANNA,
        amount="3",
        currency="EUR",
    )
    appended = await bank.producer.send(partition, refund)
    async with asyncio.timeout(60):
        listed: list[Any] = []
        while len(listed) < 2:
            listed = (await microfin(run, "quarantine", "list", "--json")).json()
    assert {(row["partition"], row["offset"]) for row in listed} == {
        (0, sent.offset),
        (partition, appended.offset),
    }
    assert "\\xffgarbage" in {row["value"] for row in listed}

    hopeless = await microfin(run, "quarantine", "replay", "0", str(sent.offset), "--json")
    assert hopeless.code == 1
    assert "it still cannot be read" in hopeless.json()[0]["refused"]
    nothing = await microfin(run, "quarantine", "replay", "0", "999999")
    assert nothing.code == 1
    assert "There is no record" in nothing.errors

    await bank.send(
        Command(
            kind="open",
            leg="request",
            operation=operation,
            account=number,
            user=ANNA,
            currency="EUR",
        )
    )
    await bank.decided(operation)
    place = [str(partition), str(appended.offset)]
    replayed = await microfin(run, "quarantine", "replay", *place, "--json")
    assert replayed.code == 0, replayed.errors + replayed.output
    assert replayed.json()[0]["new_partition"] == partition
    async with asyncio.timeout(60):
        while True:
            shown = await microfin(run, "account", "show", number, "--json")
            if shown.json()["balance"] == "3.00":
                break
    again = await microfin(run, "quarantine", "replay", *place, "--json")
    assert again.code == 1
    assert "it was replayed at" in again.json()[0]["refused"]
    left = (await microfin(run, "quarantine", "list", "--json")).json()
    assert [row["offset"] for row in left] == [sent.offset]
    everything = (await microfin(run, "quarantine", "list", "--all", "--json")).json()
    assert len(everything) == 2


async def test_every_quarantined_record_is_listed_and_no_terminal_obeys_it(
    idle_bank: Bank,
) -> None:
    run = idle_bank.operator
    values = [
        b"[" * 1_100 + b"]" * 1_100,
        b'{"v":1,"x":' + b"[" * 1_100,
        b"\xff\x00\x1b[2J",
        b'{"v":2}',
        b"",
        None,
    ]
    for offset, value in enumerate(values):
        await idle_bank.execute(
            "INSERT INTO quarantine (partition, log_offset, key, value, appended_at, reason)"
            " VALUES (1, $1, $2, $3, timestamptz '200000-01-01', $4)",
            900 + offset,
            b"\x1b[31m\xff\r",
            value,
            "why\x1b[2J",
        )
    try:
        listed = await microfin(run, "quarantine", "list")
        assert listed.code == 0, listed.errors
        assert "\x1b" not in listed.output
        rows = (await microfin(run, "quarantine", "list", "--json")).json()
        assert [row["offset"] for row in rows] == [900 + offset for offset in range(len(values))]
        refused = await microfin(run, "quarantine", "replay", "--all", "--json")
        assert refused.code == 1, refused.errors
        assert all(row["refused"] for row in refused.json())
    finally:
        await idle_bank.execute("DELETE FROM quarantine WHERE log_offset >= 900")


async def test_a_stuck_outbox_is_listed_and_sent(idle_bank: Bank) -> None:
    run = idle_bank.operator
    assert "All outboxes are empty." in (await microfin(run, "outbox", "list")).output
    async with ledger_of(idle_bank) as ledger:
        source, destination = ledger.open(ANNA, "EUR", 0), ledger.open(ANNA, "EUR", 1)
        ledger.request("deposit", source, user=ANNA, amount="9")
        await ledger.drain()
        transfer = ledger.request("transfer", source, user=ANNA, to=destination, amount="4")
        await ledger.settle(0)
    (row,) = (await microfin(run, "outbox", "list", "--json")).json()
    assert (row["operation"], row["leg"], row["account"]) == (transfer, "credit", destination)
    assert (await microfin(run, "outbox", "resend", "--older-than", "3600", "--json")).json() == []
    (sent,) = (await microfin(run, "outbox", "resend", "--older-than", "0", "--json")).json()
    assert sent["sent_to_partition"] == 1
    assert len((await microfin(run, "outbox", "list", "--json")).json()) == 1

    place = aiokafka.TopicPartition(idle_bank.topic, 1)
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=idle_bank.settings.kafka)
    consumer.assign([place])
    await consumer.start()
    consumer.seek(place, sent["sent_to_offset"])
    record = await consumer.getone(place)
    await consumer.stop()
    command = wire.decode(record.key, record.value)
    assert (command.operation, command.leg, command.generation) == (transfer, "credit", 1)


async def test_the_log_is_trimmed_below_what_was_decided(bank: Bank) -> None:
    run = bank.operator
    number = await bank.opened(0)
    for _ in range(5):
        await bank.asked("deposit", number, "1")

    week = await microfin(run, "log", "trim", "--json")
    assert week.code == 0, week.errors
    young = week.json()
    assert [row["records"] for row in young["partitions"]] == [0, 0]
    dry = await microfin(run, "log", "trim", "--keep-hours", "0", "--dry-run", "--json")
    assert dry.code == 0, dry.errors
    first = dry.json()["partitions"][0]
    assert (first["start"], first["keep_from"]) == (0, first["next_offset"] - 1)
    kept = await microfin(run, "log", "trim", "--keep-hours", "0", "--keep-records", "3")
    assert kept.code == 0, kept.errors
    assert "are gone" in kept.output
    after = await microfin(run, "log", "trim", "--keep-hours", "0", "--dry-run", "--json")
    first = after.json()["partitions"][0]
    assert first["start"] == first["next_offset"] - 3
    gone = await microfin(run, "log", "trim", "--keep-hours", "0")
    assert gone.code == 0, gone.errors

    # A worker finds its place in what is left.
    await bank.start_worker(0)
    await bank.asked("deposit", number, "1")


@pytest.mark.parametrize(
    ("bounds", "keep_records", "keep_from"),
    [
        (Bounds(0, 10, 10, None), 0, 9),
        (Bounds(0, 10, 7, None), 0, 6),
        (Bounds(0, 10, 7, 3), 0, 3),
        (Bounds(0, 10, 7, 9), 0, 6),
        (Bounds(0, 10, 7, None), 4, 3),
        (Bounds(5, 10, 7, None), 4, 5),
        (Bounds(5, 10, 5, None), 0, 5),
        (Bounds(5, 10, 7, 2), 0, 5),
        (Bounds(0, 0, 0, None), 0, 0),
        (Bounds(3, 10, None, None), 0, 3),
    ],
)
def test_what_may_go_of_a_log(bounds: Bounds, keep_records: int, keep_from: int) -> None:
    assert plan(bounds, keep_records) == Trim(keep_from)


@pytest.mark.parametrize("bounds", [Bounds(5, 10, 4, None), Bounds(5, 10, 11, None)])
def test_a_log_that_is_not_the_databases_is_left_alone(bounds: Bounds) -> None:
    trim = plan(bounds, 0)
    assert trim.keep_from == bounds.start
    assert "not in the log" in trim.fault


async def test_a_user_is_created_once(bank: Bank) -> None:
    create = ["user", "create", "Ada@Example.com", "--name", "Ada", "--password-stdin", "--json"]
    short = await microfin(bank.operator, *create, typed="short\n")
    assert short.code == 2
    assert "8 to 128" in short.errors
    known = await microfin(bank.operator, *create, typed="iloveyou\n")
    assert known.code == 2
    assert "tried first" in known.errors
    unseen = [*create[:4], "\u3164", *create[5:]]
    nobody = await microfin(bank.operator, *unseen, typed="correct horse battery\n")
    assert nobody.code == 2
    assert "can be seen" in nobody.errors
    made = await microfin(bank.operator, *create, typed="correct horse battery\n")
    assert made.code == 0, made.errors
    assert made.json()["email"] == "ada@example.com"
    connection = await asyncpg.connect(
        bank.platform.postgres_direct(0, database=bank.database), ssl=False
    )
    row = await connection.fetchrow("SELECT id, password_hash FROM users")
    await connection.close()
    assert row["id"].hex == made.json()["id"]
    assert PasswordHasher().verify(row["password_hash"], "correct horse battery")
    again = await microfin(bank.operator, *create, typed="correct horse battery\n")
    assert again.code == 1
    assert "already" in again.errors
