"""What `microfin recover check` sees in the log, for any record."""

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.wire import Command
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.recovery.log_scan import LogScan

OPERATION = "a" * 32
ACCOUNT = derive_account_number(OPERATION, 0)
KEY = ACCOUNT.encode()


def deposit(**fields: Any) -> bytes:
    return wire.encode(
        Command(
            kind="deposit",
            leg="request",
            operation=OPERATION,
            account=ACCOUNT,
            amount="1",
            **fields,
        )
    )


NEWER = f'{{"v":{wire.VERSION + 1},"generation":2}}'.encode()
GARBAGE = [
    b"[" * 1_100 + b"]" * 1_100,
    b'{"v":1,"x":' + b"[" * 1_100 + b"]" * 1_100 + b"}",
    None,
    b"",
    b"\xff\x00",
    b'{"v":1,"generation":7}',
    b'{"generation":' + b"9" * 26 + b"}",
    b'{"generation":' + b"9" * 5_000 + b"}",
    deposit(generation=7).replace(b'"1"', b'"one"'),
]


async def scanned(platform: Platform, topic: str, values: list[bytes | None]) -> Any:
    await platform.create_topic(topic, 1)
    environment = platform.environment("operator", "microfin", topic)
    producer = AIOKafkaProducer(bootstrap_servers=environment["MICROFIN_KAFKA"])
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value, key=KEY, partition=0)
    await producer.stop()
    settings = CommonSettings(kafka=environment["MICROFIN_KAFKA"], topic=topic)
    async with LogScan(settings, lambda _said: None) as scan:
        return await scan.scan(0, 0, len(values), 1, {OPERATION})


async def test_garbage_is_no_evidence_of_a_growth(platform: Platform) -> None:
    """The workers set it aside, even if it names any other routing."""
    noticed = await scanned(platform, "scan-garbage", [*GARBAGE, deposit(generation=1)])
    assert noticed.records == len(GARBAGE) + 1
    assert noticed.later is None
    assert noticed.operations == {OPERATION}


@pytest.mark.parametrize("value", [deposit(generation=2), NEWER])
async def test_a_command_of_a_later_routing_is(platform: Platform, value: bytes) -> None:
    topic = f"scan-later-{len(value)}"
    noticed = await scanned(platform, topic, [*GARBAGE, value])
    assert noticed.later.offset == len(GARBAGE)
    assert noticed.later_generation == 2
