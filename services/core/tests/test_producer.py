"""A partition without progress: records sent to it wait or are refused, never forgotten."""

import asyncio
from collections import Counter
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from microfin.kafka import producer as producer_module
from microfin.kafka.producer import Appended, CommandProducer, ProduceRefused
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.ledger.wire import Command
from microfin.process import silence
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from support.waiting import until

BROKER = "kafka-1"
STILL = 4.0  # seconds, longer than a request may take


def _commands(count: int) -> list[Command]:
    ids = [operation_id("a" * 32, str(number), "open", "") for number in range(count)]
    return [
        Command(
            kind="open",
            leg="request",
            operation=it,
            account=derive_account_number(it, 0),
            user="a" * 32,
            currency="EUR",
            generation=1,
        )
        for it in ids
    ]


async def _send_while_it_is_stopped(
    platform: Platform, count: int
) -> tuple[Counter[type], str, CommandProducer]:
    """Send `count` commands to a broker that is frozen; count how they ended."""
    topic = f"producer_{uuid4().hex[:8]}"
    await platform.create_topic(topic, 1)
    environment = platform.environment("worker", topic=topic)
    settings = CommonSettings(kafka=environment["MICROFIN_KAFKA"], topic=topic)
    producer = CommandProducer(settings, "test")
    await producer.start()
    await producer.send(0, _commands(1)[0])
    await platform.pause(BROKER)
    try:
        sending = [asyncio.create_task(producer.send(0, it)) for it in _commands(count)]
        await asyncio.sleep(STILL)
    finally:
        await platform.resume(BROKER)
    ended = await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), 60)
    return Counter(map(type, ended)), topic, producer


async def _records(platform: Platform, topic: str) -> int:
    place = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=platform.endpoints.kafka)
    await consumer.start()
    try:
        return (await consumer.end_offsets([place]))[place]
    finally:
        await consumer.stop()


async def test_what_was_sent_meanwhile_is_all_appended(platform: Platform) -> None:
    ended, topic, producer = await _send_while_it_is_stopped(platform, 300)
    await producer.stop()
    assert ended == {Appended: 300}
    assert await _records(platform, topic) == 301


async def test_what_finds_no_room_is_refused_and_costs_the_others_nothing(
    platform: Platform,
) -> None:
    ended, topic, producer = await _send_while_it_is_stopped(platform, 3_000)
    assert producer.ready, "it was not replaced"
    await producer.stop()
    assert set(ended) == {Appended, ProduceRefused}
    assert await _records(platform, topic) == ended[Appended] + 1


async def test_brokers_that_are_all_elsewhere_are_found_by_the_configured_names(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client itself asks only brokers that it knows. Until then it is not ready."""
    for name, seconds in (("UNREACHABLE_AFTER", 1.0), ("_PROBE_EVERY", 0.1)):
        monkeypatch.setattr(producer_module, name, seconds)
    monkeypatch.setattr(silence, "SAID_AFTER", 0.5)
    topic = f"producer_{uuid4().hex[:8]}"
    await platform.create_topic(topic, 1)
    producer = CommandProducer(CommonSettings(kafka=platform.endpoints.kafka, topic=topic), "test")
    await producer.start()
    first, second = _commands(2)
    await producer.send(0, first)
    assert producer._producer is not None
    client = producer._producer.client
    # As if all had been elsewhere when it heard of them. An answer on its way brings none back.
    monkeypatch.setattr(client.cluster, "update_metadata", lambda _: None)
    client.cluster._brokers = {
        node: broker._replace(port=1) for node, broker in client.cluster._brokers.items()
    }
    for connection in client._conns.values():
        connection.close()
    # It is not ready for as long as a new connection takes, which may be short.
    await until("the producer is not ready", lambda: not producer.ready, 60, pause=0.002)
    await until("the producer is ready again", lambda: producer.ready, 60)
    assert (await producer.send(0, second)).offset == 1
    await producer.stop()
