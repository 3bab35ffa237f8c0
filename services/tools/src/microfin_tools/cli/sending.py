"""A producer for commands that append to the log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from microfin.kafka.producer import CommandProducer
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot

_CONNECT_TIMEOUT: Final = 15
"""Seconds."""


@contextlib.asynccontextmanager
async def connected_producer(settings: CommonSettings) -> AsyncIterator[CommandProducer]:
    """Give a producer that is connected. Raises `CouldNot` where Kafka is not reachable."""
    producer = CommandProducer(settings, "microfin-cli")
    try:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await producer.start()
        except TimeoutError:
            raise CouldNot(
                f"Kafka did not answer at {settings.kafka} within {_CONNECT_TIMEOUT} s: is it "
                "running, and is MICROFIN_KAFKA right?"
            ) from None
        yield producer
    finally:
        await producer.stop()
