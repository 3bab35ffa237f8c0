"""Records that no API wrote, and logs that are not what they were."""

import asyncio
import signal
import time
from collections.abc import Callable

from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from integration.bank import ANNA, Bank, MakeBank
from integration.raw_log import admin, append_raw
from microfin.ledger import wire
from microfin.ledger.operation import operation_id
from microfin.postgres import queries
from microfin_worker.tenure import LOOK_UP_BATCHES
from support.waiting import until


async def make_topic_anew(bank: Bank) -> None:
    client = await admin(bank)
    await client.delete_topics([bank.topic])

    async def made() -> bool:
        answer = await client.create_topics([NewTopic(bank.topic, 1, 1)])
        return all(code == 0 for _, code, *_ in answer.topic_errors)

    await until("the topic is made anew", made)
    await client.close()


async def trim(bank: Bank, offset: int) -> None:
    client = await admin(bank)
    await client.delete_records({TopicPartition(bank.topic, 0): RecordsToDelete(offset)})
    await client.close()


async def test_garbage_is_quarantined_and_its_neighbours_are_settled(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    garbage = [
        (b"", b""),
        (None, b"keyless"),
        (b"valueless", None),
        (b"x", b"\x00\xff" * 50),
        (b"x", b"[1,2,3]"),
        (b"x", b'{"v":1}'),
        (account.encode(), b'{"v":1,"kind":"deposit"'),
        (account.encode(), b"null"),
        (account.encode(), b'{"v":1,"kind":"\xed\xa0\x80"}'),
        (b"big", b"x" * 900_000),
    ]
    for key, value in garbage:
        await append_raw(bank, 0, key, value)
        await bank.deposit(account, "1", f"after {key!r} {len(value or b'')} {value!r:.20}")
    await bank.check()
    rows = await bank.fetch("SELECT key, value, reason FROM quarantine ORDER BY log_offset")
    assert [(row["key"], row["value"]) for row in rows] == garbage
    assert all(row["reason"] for row in rows)
    assert (await worker.status())["epoch"] == 1, "garbage made the worker start again"
    metrics = (await worker.get("/metrics")).text
    assert f"microfin_worker_quarantined_total {len(garbage)}.0" in metrics


async def test_a_broken_request_is_answered_and_stays_rejected(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    await bank.workers()
    account = await bank.open_on(0, balance="1")
    broken = wire.encode(bank.request("deposit", account, "broken", amount="1")).replace(
        b'"amount":"1"', b'"amount":"one"'
    )
    await append_raw(bank, 0, account.encode(), broken)
    operation = await bank.final(operation_id(ANNA, "broken", "deposit", account))
    assert (operation.status, operation.reason) == ("rejected", "quarantined")
    await bank.deposit(account, "1", "broken")
    await bank.check()
    assert await bank.balance(account) == 100


async def test_what_the_database_refuses_is_cut_out_alone(make_bank: MakeBank) -> None:
    """As it would be after a defect: the core decides what a column does not hold."""
    bank = await make_bank(partitions=1)
    await bank.execute("ALTER TABLE outcomes ADD CONSTRAINT planted CHECK (amount <> 66600)")
    account = await bank.open_on(0, balance="1")
    poison = bank.request("deposit", account, "poison", amount="666")
    for n in range(30):
        await bank.deposit(account, "1", f"before {n}")
    await bank.append(poison)
    for n in range(30):
        await bank.deposit(account, "1", f"behind {n}")
    worker = (await bank.workers())[0]
    await bank.check()
    assert (await bank.final(poison.operation)).reason == "quarantined"
    assert await bank.balance(account) == 6_100
    rows = await bank.fetch("SELECT log_offset, reason FROM quarantine")
    assert [row["log_offset"] for row in rows] == [bank.acknowledged[poison.operation].offset]
    status = await worker.status()
    assert (status["state"], status["epoch"]) == ("working", 1), "a refusal made it claim again"


async def test_many_that_the_database_refuses_hold_nobody_up_for_long(
    make_bank: MakeBank, record_property: Callable[[str, object], None]
) -> None:
    bank = await make_bank(partitions=1)
    await bank.execute("ALTER TABLE outcomes ADD CONSTRAINT planted CHECK (amount <> 66600)")
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    poison = await asyncio.gather(*(bank.deposit(account, "666", f"bad {n}") for n in range(200)))
    began = time.monotonic()
    behind = await bank.final(await bank.deposit(account, "1", "behind them"))
    record_property("seconds behind 200", round(time.monotonic() - began, 3))
    print(f"a neighbour behind 200 waited {time.monotonic() - began:.3f} s")
    assert behind.balance == 200
    found = await queries.operations(bank.pools, poison)
    assert {it.operation.reason for it in found.values()} == {"quarantined"}
    assert {it.request.user for it in found.values()} == {ANNA}, "its owner may ask for it"
    assert (await worker.status())["epoch"] == 1
    await bank.check()


async def test_a_neighbour_behind_amounts_beyond_64_bits_does_not_wait(
    make_bank: MakeBank, record_property: Callable[[str, object], None]
) -> None:
    """Such a request is rejected like any other: no new claim, nothing in quarantine."""
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    big = await bank.open("big", currency="BHD")
    neighbour = await bank.open_on(0, balance="1")
    await bank.check()
    amount = "9999999999999999"
    beyond = await asyncio.gather(
        *(bank.withdraw(big, amount, f"beyond {n}") for n in range(100)),
        *(bank.transfer(big, neighbour, amount, f"beyond {n}") for n in range(100)),
    )
    began = time.monotonic()
    settled = await bank.final(await bank.deposit(neighbour, "1", "behind them"))
    record_property("seconds behind 200", round(time.monotonic() - began, 3))
    print(f"a neighbour behind 200 waited {time.monotonic() - began:.3f} s")
    assert (settled.status, settled.balance) == ("settled", 200)
    await bank.check()
    found = await queries.operations(bank.pools, beyond)
    assert {it.operation.reason for it in found.values()} == {"insufficient_funds"}
    assert (await worker.status())["epoch"] == 1, "the worker claimed again"
    assert not await bank.fetch("SELECT 1 FROM quarantine")


async def test_a_record_of_a_newer_version_stops_the_partition_loudly(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    account = await bank.open_on(0, balance="1")
    other = await bank.open_on(1, balance="1")
    newer = f'{{"v":{wire.VERSION + 1},"kind":"from the future"}}'.encode()
    offset = await append_raw(bank, 0, account.encode(), newer)
    status = await workers[0].reaches("stopped")
    assert f"version {wire.VERSION + 1}" in status["reason"]
    assert status["next_offset"] == offset
    assert (await workers[0].get("/readyz")).status_code == 503
    assert (await workers[0].get("/healthz")).status_code == 200
    await bank.final(await bank.deposit(other, "1", "the other partition goes on"))
    assert not await bank.fetch("SELECT 1 FROM quarantine")


async def test_a_record_of_a_later_routing_stops_the_partition(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    ahead = wire.encode(bank.request("deposit", account, "ahead", amount="1")).replace(
        b'"generation":1', b'"generation":2'
    )
    await append_raw(bank, 0, account.encode(), ahead)
    status = await worker.reaches("stopped")
    assert "generation 2" in status["reason"]
    assert await bank.balance(account) == 100


async def test_a_routing_that_the_row_has_already_is_adopted(make_bank: MakeBank) -> None:
    """As a growth leaves it: the row is ahead of the worker, and so is the record."""
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    for n in range(LOOK_UP_BATCHES + 5):  # until it decides ahead, from memory
        await bank.final(await bank.deposit(account, "1", f"a batch of its own {n}"))
    await bank.execute("UPDATE partitions SET generation = 2")
    await bank.execute("UPDATE routing SET generation = 2")
    command = bank.request("deposit", account, "under the new routing", amount="1", generation=2)
    await bank.final(await bank.append(command))
    status = await worker.status()
    assert (status["state"], status["generation"], status["epoch"]) == ("working", 2, 1)
    await bank.check()


async def test_a_command_in_the_wrong_partition_is_forwarded(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    await bank.workers()
    account = await bank.open_on(0, balance="1")
    await bank.check()
    command = bank.request("deposit", account, "astray", amount="2")
    await bank.append(command, partition=1)
    assert (await bank.final(command.operation)).balance == 300
    await bank.check()


async def test_a_topic_that_was_replaced_stops_the_worker(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    await make_topic_anew(bank)
    for n in range(5):  # as long as the old log, so that only the fingerprint differs
        await append_raw(
            bank,
            0,
            account.encode(),
            wire.encode(bank.request("deposit", account, f"new log {n}", amount="1")),
        )
    status = await worker.reaches("stopped", seconds=60)
    assert "replaced" in status["reason"] or "lost" in status["reason"]
    assert await bank.balance(account) == 100
    again = await bank.worker(0)
    await again.reaches("stopped", seconds=60)
    assert await bank.balance(account) == 100


async def test_a_topic_replaced_while_the_worker_is_frozen_stops_it(
    make_bank: MakeBank,
) -> None:
    """When it wakes up, the offset that it wants is there, and nothing reports another topic."""
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    worker.send_signal(signal.SIGSTOP)
    await make_topic_anew(bank)
    for n in range(5):
        record = wire.encode(bank.request("deposit", account, f"new log {n}", amount="1"))
        await append_raw(bank, 0, account.encode(), record)
    worker.send_signal(signal.SIGCONT)
    status = await worker.reaches("stopped", seconds=60)
    assert "replaced" in status["reason"]
    assert await bank.balance(account) == 100


async def test_a_log_trimmed_up_to_the_committed_offset_is_worked_on(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    next_offset = (await worker.status())["next_offset"]
    await worker.end()
    await trim(bank, next_offset)
    await (await bank.worker(0)).ready()
    await bank.deposit(account, "1", "after the trim")
    await bank.check()


async def test_a_log_trimmed_beyond_the_committed_offset_stops_the_worker(
    make_bank: MakeBank,
) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    account = await bank.open_on(0, balance="1")
    await bank.check()
    await worker.end()
    lost = await bank.deposit(account, "1", "trimmed away")
    await trim(bank, bank.acknowledged[lost].offset + 1)
    status = await (await bank.worker(0)).reaches("stopped")
    assert "records were lost" in status["reason"]


async def test_a_log_trimmed_before_anything_was_decided_stops_the_worker(
    make_bank: MakeBank,
) -> None:
    bank = await make_bank(partitions=1)
    lost = await bank.deposit("0" * 12, "1", "trimmed away")
    await trim(bank, bank.acknowledged[lost].offset + 1)
    status = await (await bank.worker(0)).reaches("stopped")
    assert "records were lost" in status["reason"]


async def test_a_log_that_ends_too_early_stops_the_worker(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = (await bank.workers())[0]
    await bank.open_on(0, balance="1")
    await bank.check()
    await worker.end()
    await make_topic_anew(bank)
    status = await (await bank.worker(0)).reaches("stopped", seconds=60)
    assert "records were lost" in status["reason"]


async def test_a_worker_waits_for_its_partition(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    worker = await bank.worker(1)
    status = await worker.reaches("waiting")
    assert "no partition 1" in status["reason"]
    assert (await worker.get("/readyz")).status_code == 503
    assert not await bank.fetch("SELECT 1 FROM partitions WHERE partition = 1")
