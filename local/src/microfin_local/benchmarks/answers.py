"""Answer times on an idle platform, and the time from a worker's death to a settled deposit."""

import time
from statistics import median
from typing import Any
from uuid import uuid4

import httpx

from microfin.ledger.routing import partition_of
from microfin_local.platform import Platform

_REQUESTS = 200


async def measure_answers(platform: Platform, partitions: int) -> dict[str, Any]:
    """Return the answer times of settled deposits and of transfers across partitions, in ms.

    One request at a time, through nginx.
    """
    async with _client(platform) as client:
        await _sign_up(client)
        source, destination = await _two_partitions(client, partitions)
        await _post(client, "/api/deposit", accountNumber=source, amount="100000")
        deposits = [
            await _post(client, "/api/deposit", accountNumber=source, amount="1")
            for _ in range(_REQUESTS)
        ]
        transfers = [
            await _post(
                client,
                "/api/transfer",
                senderAccountNumber=source,
                receiverAccountNumber=destination,
                amount="1",
            )
            for _ in range(_REQUESTS)
        ]
    return {"deposit_ms": _summary(deposits), "transfer_ms": _summary(transfers)}


async def measure_recovery(platform: Platform, partitions: int) -> dict[str, Any]:
    """Return the seconds from `kill -9` of a worker to the next settled deposit there."""
    async with _client(platform) as client:
        await _sign_up(client)
        account, _ = await _two_partitions(client, partitions)
        await _post(client, "/api/deposit", accountNumber=account, amount="1")
        worker = f"worker-{partition_of(account, partitions)}"
        began = time.monotonic()
        await platform.kill(worker)
        while True:
            answer = await client.post(
                "/api/deposit", json={"accountNumber": account, "amount": "1"}, timeout=20
            )
            if answer.status_code == 200:
                return {"seconds": round(time.monotonic() - began, 3)}


def _client(platform: Platform) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=platform.endpoints.api, timeout=20)


async def _sign_up(client: httpx.AsyncClient) -> None:
    person = {
        "name": "Benchmark",
        "email": f"{uuid4().hex}@example.com",
        "password": uuid4().hex,
    }
    (await client.post("/api/signup", json=person)).raise_for_status()


async def _two_partitions(client: httpx.AsyncClient, partitions: int) -> tuple[str, str]:
    """Open accounts until two are on different partitions; return those."""
    first = (await client.post("/api/accounts", json={})).json()["accountNumber"]
    while True:
        other = (await client.post("/api/accounts", json={})).json()["accountNumber"]
        if partition_of(other, partitions) != partition_of(first, partitions):
            return first, other


async def _post(client: httpx.AsyncClient, path: str, **body: str) -> float:
    """Return the milliseconds until a settled answer. Raises RuntimeError for any other answer."""
    began = time.perf_counter()
    answer = await client.post(path, json=body)
    elapsed = time.perf_counter() - began
    if answer.status_code != 200 or answer.json()["status"] != "settled":
        raise RuntimeError(f"{path} was answered {answer.status_code}: {answer.text}")
    return elapsed * 1000


def _summary(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        "p50": round(median(ordered), 2),
        "p95": round(ordered[len(ordered) * 95 // 100], 2),
        "max": round(ordered[-1], 2),
    }
