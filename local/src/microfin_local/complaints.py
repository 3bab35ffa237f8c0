"""The problems that the running processes report, for `status`."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx

from microfin_local.endpoints import Endpoints


async def complaints(endpoints: Endpoints) -> list[str]:
    """Return the problems that API processes and workers report, each with the processes' names."""
    async with httpx.AsyncClient(timeout=4) as client:
        said = await asyncio.gather(
            *(_ask(client, f"api-{n}", f"{url}/readyz") for n, url in enumerate(endpoints.apis)),
            *(
                _ask(client, f"worker-{n}", f"{url}/status")
                for n, url in enumerate(endpoints.workers)
            ),
        )
    return _together([line for lines in said for line in lines])


async def _ask(client: httpx.AsyncClient, name: str, url: str) -> list[tuple[str, str]]:
    try:
        status: dict[str, Any] = (await client.get(url)).json()
    except (httpx.HTTPError, ValueError):
        return [(name, "it does not answer")]
    lines = [*status.get("missing", ()), *status.get("degraded", ())]
    if status.get("reason"):
        lines.append(f"{status['state']}: {status['reason']}")
    return [(name, line) for line in lines]


def _together(said: Iterable[tuple[str, str]]) -> list[str]:
    """Join equal problems of several processes into one line."""
    by_line: dict[str, list[str]] = {}
    for name, line in said:
        by_line.setdefault(line, []).append(name)
    return [f"{', '.join(names)}: {line}" for line, names in by_line.items()]
