"""The auditor's queries of the log: its end offsets, and the records that were decided last."""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from microfin.ledger.fingerprint import fingerprint
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot
from microfin_tools.cli.topic import open_topic
from microfin_tools.recovery.log_scan import LogScan

_RECORDS_TIMEOUT: Final = 60
"""Seconds for the records of all partitions."""


class KafkaLogEnds:
    """Returns the end offset of each partition of the commands topic, None if Kafka is away."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings

    async def __call__(self) -> dict[int, int] | None:
        """Ask the brokers."""
        try:
            async with open_topic(self._settings) as topic:
                return await topic.ends()
        except (CouldNot, KafkaError, OSError):
            return None


class KafkaFingerprints:
    """Returns the fingerprints of the records that the log still keeps and returns."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings

    async def __call__(self, offsets: Mapping[int, int]) -> Mapping[int, bytes]:
        """Read the record at the offset of each partition in `offsets`."""
        found: dict[int, bytes] = {}
        try:
            async with asyncio.timeout(_RECORDS_TIMEOUT), LogScan(self._settings, _quiet) as scan:
                for partition, offset in offsets.items():
                    await _read(scan, partition, offset, found)
        except (KafkaError, OSError):  # a TimeoutError is an OSError
            pass
        return found


async def _read(scan: LogScan, partition: int, offset: int, found: dict[int, bytes]) -> None:
    try:
        record = await scan.record_at(partition, offset)
    except OffsetOutOfRangeError:
        return  # trimmed
    if record is not None:
        found[partition] = fingerprint(record.offset, record.time, record.key, record.value)


def _quiet(_message: str) -> None:
    """Print no progress: these reads are short."""
