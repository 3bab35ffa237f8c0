"""A bank's topic without the bank: raw records, and the topic's administration."""

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from integration.bank import Bank


async def append_raw(bank: Bank, partition: int, key: bytes | None, value: bytes | None) -> int:
    """Append a record that no API wrote, and return its offset."""
    producer = AIOKafkaProducer(bootstrap_servers=bank.settings().kafka)
    await producer.start()
    try:
        sent = await producer.send_and_wait(bank.topic, value, key=key, partition=partition)
    finally:
        await producer.stop()
    offset: int = sent.offset
    return offset


async def admin(bank: Bank) -> AIOKafkaAdminClient:
    """Return a client that may change topics; the caller closes it."""
    client = AIOKafkaAdminClient(bootstrap_servers=bank.settings().kafka)
    await client.start()
    return client
