"""The log on a real broker, also when its reader fails without an error."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from microfin.kafka import client
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.ledger.wire import Command
from microfin.process.settings import WorkerSettings
from microfin.process.silence import SAID_AFTER
from microfin_local.platform import Platform
from microfin_worker import kafka_log, log_watch
from microfin_worker.kafka_log import KafkaLog, ReaderSilent
from support.waiting import until_true


@pytest_asyncio.fixture
async def log(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KafkaLog]:
    monkeypatch.setattr(kafka_log, "_LONGEST_SILENCE", 0.5)
    topic = f"log_{uuid4().hex[:8]}"
    await platform.create_topic(topic, 1)
    kafka = platform.environment("worker")["MICROFIN_KAFKA"]
    log = KafkaLog(WorkerSettings(kafka=kafka, topic=topic), 0)
    await log.start()
    await log.seek(0)
    yield log
    await log.stop()


def command(key: str) -> Command:
    operation = operation_id("a" * 32, key, "open", "")
    return Command(
        kind="open",
        leg="request",
        operation=operation,
        account=derive_account_number(operation, 0),
        user="a" * 32,
        currency="EUR",
        generation=1,
    )


async def kill_reader(log: KafkaLog) -> None:
    """Make the reader fetch nothing more without an error, like one that the brokers refuse."""
    assert log._reader is not None
    await log._reader._fetcher.close()


async def test_the_broker_reports_the_end_though_the_reader_is_dead(log: KafkaLog) -> None:
    await log.append(0, command("first"))
    assert len(await fetched(log)) == 1
    await kill_reader(log)
    await log.append(0, command("second"))
    await until_true(lambda: log.end() == 2)
    assert log.silence.seconds() == 0


async def test_a_dead_reader_is_discarded_and_another_one_continues(log: KafkaLog) -> None:
    await log.append(0, command("first"))
    assert len(await fetched(log)) == 1
    await kill_reader(log)
    await log.append(0, command("second"))
    with pytest.raises(ReaderSilent):
        await fetched(log)
    await log.seek(1)
    assert [record.offset for record in await fetched(log)] == [1]


async def test_answers_to_the_reader_spare_the_watch_its_requests(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the reader is dead, the watch asks again each time it looks."""
    monkeypatch.setattr(log_watch, "EVERY", 0.1)
    monkeypatch.setattr(log_watch, "_COUNT_EVERY", 10**9)
    watch, asked = log._watch, 0
    ask = watch._ask

    async def counted() -> int:
        nonlocal asked
        asked += 1
        return await ask()

    monkeypatch.setattr(watch, "_ask", counted)
    await log.append(0, command("first"))
    assert len(await fetched(log)) == 1
    watch._until_count = 10**9
    asked = 0
    for _ in range(3):
        await log.fetch(1)
    assert asked == 0
    assert log.silence.seconds() == 0
    await kill_reader(log)
    await until_true(lambda: asked > 3)
    assert log.silence.seconds() == 0


async def test_a_silence_lasts_while_the_same_old_answer_is_noted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often the watch looks: no answer has come since."""

    async def unanswered() -> int:
        raise TimeoutError

    log = KafkaLog(WorkerSettings(kafka="127.0.0.1:1"), 0)
    monkeypatch.setattr(log._watch, "_ask", unanswered)
    log._answered = began = time.monotonic()
    for _ in range(3):
        assert not await log._watch._look()
    assert log.silence._since == began


async def test_a_clock_that_is_set_back_does_not_make_old_answers_new(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append(0, command("first"))
    assert len(await fetched(log)) == 1
    await kill_reader(log)
    monkeypatch.setattr(log._clock, "now", lambda: 0)
    await until_true(lambda: time.monotonic() - log._reader_answered() > log_watch.READER_ANSWERS)


async def test_a_stop_does_not_wait_for_the_end_of_a_fetch(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.end_fetch()  # there is none yet
    monkeypatch.setattr(kafka_log, "_FETCH_WAIT", 3_600_000)
    fetching = asyncio.create_task(log.fetch(10))
    await asyncio.sleep(0.1)
    log.end_fetch()
    async with asyncio.timeout(10):
        assert list(await fetching) == []
    await log.append(0, command("first"))
    assert len(await fetched(log)) == 1


async def test_an_offset_that_has_not_changed_is_noted_once(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log._reader is not None
    commit, committed = log._reader.commit, []

    async def counted(offsets: dict[TopicPartition, int]) -> None:
        await commit(offsets)
        committed.extend(offsets.values())

    monkeypatch.setattr(log._reader, "commit", counted)
    for offset in (0, 0, 7, 7, 7):
        await log.note(offset)
    assert committed == [0, 7]
    monkeypatch.setattr(kafka_log, "_NOTE_AGAIN", 0.0)
    await log.note(7)
    assert committed == [0, 7, 7]


def test_a_request_may_take_longer_than_a_fetch_waits() -> None:
    """Otherwise each fetch of an idle worker would end its connection."""
    assert 2 * kafka_log._FETCH_WAIT <= client._REQUEST_TIMEOUT
    assert kafka_log._FETCH_WAIT / 1000 < log_watch.READER_ANSWERS
    assert log_watch.UNASKED < SAID_AFTER


async def fetched(log: KafkaLog) -> list[kafka_log.Record]:
    async with asyncio.timeout(30):
        while not (records := await log.fetch(10)):
            pass
    return list(records)


async def test_a_broker_that_does_not_answer_is_noticed(log: KafkaLog, platform: Platform) -> None:
    """On an existing connection, and when no connection can be made."""
    await platform.pause("kafka-1")
    try:
        await until_true(lambda: log.silence.seconds() > 0)
    finally:
        await platform.resume("kafka-1")
    await until_true(lambda: log.silence.seconds() == 0)


async def test_a_broker_that_falls_silent_does_not_look_like_a_lost_record(
    log: KafkaLog, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that took it for one would stop for good."""
    await log.append(0, command("first"))
    assert (found := await log.record_at(0)) is not None
    assert found.offset == 0
    connect = log._connect_assigned

    async def then_fall_silent(group: str | None) -> AIOKafkaConsumer:
        consumer = await connect(group)
        await platform.pause("kafka-1")
        await asyncio.sleep(0.5)  # all of the broker's threads stop a moment later
        return consumer

    monkeypatch.setattr(log, "_connect_assigned", then_fall_silent)
    try:
        with pytest.raises(TimeoutError):
            await log.record_at(0)
    finally:
        await platform.resume("kafka-1")


async def test_the_topics_new_partitions_are_counted(log: KafkaLog) -> None:
    """The operator grows a bank by this number, also when others made the partitions."""
    await until_true(lambda: log.topic_partitions == 1)
    settings = log._settings
    administrator = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await administrator.start()
    try:
        await administrator.create_partitions({settings.topic: NewPartitions(3)})
    finally:
        await administrator.close()
    await until_true(lambda: log.topic_partitions == 3)
