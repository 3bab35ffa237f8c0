"""Reads the workers' `/status`."""

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec

from microfin_operator.kinds import KubernetesObject
from microfin_operator.observation import WorkerReport

_PATIENCE: Final = aiohttp.ClientTimeout(total=2)
_AT_ONCE: Final = 32


class WorkerReader:
    """Reads workers at their pods' addresses; a worker that does not answer is left out."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._session = aiohttp.ClientSession(timeout=_PATIENCE)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def read(self, pods: Mapping[int, KubernetesObject]) -> dict[int, WorkerReport]:
        """Return the reports of the workers in `pods` by their ordinals."""
        addresses = {
            ordinal: address
            for ordinal, pod in pods.items()
            if (address := pod.get("status", {}).get("podIP"))
            and pod["status"].get("phase") == "Running"
        }
        reports = await asyncio.gather(*map(self._ask, addresses.values()))
        return {
            ordinal: report
            for ordinal, report in zip(addresses, reports, strict=True)
            if report is not None and report.partition == ordinal
        }

    async def _ask(self, address: str) -> WorkerReport | None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with (
                self._turns,
                self._session.get(f"http://{host}:{self._port}/status") as response,
            ):
                response.raise_for_status()
                return msgspec.json.decode(await response.read(), type=WorkerReport)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return None
