"""Waits until a platform that nobody breaks or uses any more is ready and at rest."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from microfin_local import applications
from microfin_local.configuration import TOPIC
from microfin_local.platform import Platform

_POLL_SECONDS = 0.1


class Restless(Exception):
    """The platform did not come to rest; the message says what was still missing."""


async def until_ready(platform: Platform, seconds: float) -> None:
    """Wait until every worker, every API process and nginx say that they are ready."""
    urls = [*platform.endpoints.workers, *platform.endpoints.apis, platform.endpoints.api]

    async def unready() -> str:
        answers = await asyncio.gather(
            *(applications.is_ready(url) for url in urls), return_exceptions=True
        )
        return ", ".join(url for url, ok in zip(urls, answers, strict=True) if ok is not True)

    await _until_nothing(unready, "not ready", seconds)


async def until_drained(platform: Platform, seconds: float) -> None:
    """Wait until every command in the log is decided, and nothing is still to be sent."""

    async def left() -> str:
        connection = await asyncpg.connect(platform.postgres_direct(), timeout=5)
        try:
            rows = await connection.fetch("SELECT partition, next_offset FROM partitions")
            outbox = await connection.fetchval("SELECT count(*) FROM outbox")
        finally:
            await connection.close()
        ends = await _log_ends(platform, [row["partition"] for row in rows])
        behind = [
            f"partition {row['partition']}: {row['next_offset']} of {ends[row['partition']]}"
            for row in rows
            if ends[row["partition"]] != row["next_offset"]
        ]
        return ", ".join([*behind, *([f"{outbox} outbox rows"] if outbox else [])])

    # Twice: what was in the outbox at the first look is in the log at the second.
    for _ in range(2):
        await _until_nothing(left, "not drained", seconds)


async def _log_ends(platform: Platform, partitions: Iterable[int]) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=platform.endpoints.kafka)
    try:
        await consumer.start()
        places = [TopicPartition(TOPIC, it) for it in partitions]
        ends = await consumer.end_offsets(places)
        return {place.partition: end for place, end in ends.items()}
    finally:
        await consumer.stop()


async def _until_nothing(ask: Callable[[], Awaitable[str]], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    missing = "nothing answers"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, TimeoutError, KafkaError, asyncpg.PostgresError):
            async with asyncio.timeout(10):
                missing = await ask()
            if not missing:
                return
        await asyncio.sleep(_POLL_SECONDS)
    raise Restless(f"{what} after {seconds:.0f} s: {missing}")
