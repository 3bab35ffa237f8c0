"""The reference: PostgreSQL's own pgbench (TPC-B) on the same server in the same run."""

import asyncio
import re

from microfin_local.programs import find_postgresql

_SCALE = 20  # branches: more than clients, so that clients do not queue for one row
_CLIENTS = 16
_THREADS = 2


async def prepare(url: str) -> None:
    """Create pgbench's tables in the database at `url`."""
    await _run(url, "-i", "-q", "-s", str(_SCALE))


async def transactions_per_second(url: str, seconds: int, clients: int = _CLIENTS) -> float:
    """Return the rate that `pgbench -M prepared -c 16` reaches in `seconds`."""
    threads = min(clients, _THREADS)
    output = await _run(
        url,
        *("-n", "-M", "prepared"),
        *("-c", str(clients), "-j", str(threads), "-T", str(seconds)),
    )
    match = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"pgbench printed no rate: {output}")
    return float(match[1])


async def _run(url: str, *arguments: str) -> str:
    program = find_postgresql() / "pgbench"
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"pgbench failed: {errors.decode()}")
    return output.decode()
