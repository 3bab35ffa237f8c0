"""Growing a bank: the topic's partitions, their workers, and `microfin routing grow`."""

import asyncio
import os
import sys
from pathlib import Path

from aiokafka.admin import NewPartitions

from integration.bank import Bank
from integration.raw_log import admin


async def widen(bank: Bank, partitions: int) -> None:
    """Give the topic more partitions, and each of the new ones its worker."""
    client = await admin(bank)
    try:
        await client.create_partitions({bank.topic: NewPartitions(partitions)})
    finally:
        await client.close()
    new = [await bank.worker(number) for number in range(bank.partitions, partitions)]
    await asyncio.gather(*(worker.ready() for worker in new))


async def grow(bank: Bank, partitions: int, **settings: str) -> tuple[int, str]:
    """Run `microfin routing grow` with the workers' settings; return its exit code and words."""
    process = await start_growing(bank, partitions, **settings)
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode()


async def start_growing(
    bank: Bank, partitions: int, program: list[str] | None = None, **settings: str
) -> asyncio.subprocess.Process:
    """Start `microfin routing grow`, or a program of this folder in its place."""
    command = program or [sys.executable, "-m", "microfin_tools"]
    return await asyncio.create_subprocess_exec(
        *command,
        "routing",
        "grow",
        "--partitions",
        str(partitions),
        env={**os.environ, **bank.environment("worker"), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parent,
    )


async def grown(bank: Bank, partitions: int) -> None:
    """Grow, and expect that it succeeds."""
    code, output = await grow(bank, partitions)
    assert code == 0, output
    bank.partitions = partitions
