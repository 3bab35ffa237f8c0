"""The API as a process of its own: what it says, what it refuses, how it stops."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator

import httpx

from support.api_under_test import PASSWORD, Ledger, api_process
from support.waiting import until, until_ready


async def stop(running: asyncio.subprocess.Process) -> None:
    """Ask a process to end, which it must do by itself and without complaint."""
    running.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.wait(), 20) == 0


async def test_it_serves_and_stops(ledger: Ledger) -> None:
    async with api_process(ledger) as (url, running):
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            body = {"name": "Anna", "email": "process@example.com", "password": PASSWORD}
            answer = await client.post("/api/signup", json=body)
            assert answer.status_code == 200
            assert "server" not in answer.headers
            number = (await client.get("/api/accountGeneration")).json()["accountNumber"]
            deposit = {"accountNumber": number, "amount": "5"}
            waiting = asyncio.create_task(client.post("/api/deposit", json=deposit))
            await asyncio.sleep(0)
            settled = await waiting
            assert settled.json()["balance"] == "5.00"
            await stop(running)


async def test_what_waits_is_answered_before_the_end(ledger: Ledger) -> None:
    await ledger.stop_workers()
    try:
        async with api_process(ledger, MICROFIN_ANSWER_WITHIN="2") as (url, running):
            await until_ready(url)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                body = {"name": "Anna", "email": "waits@example.com", "password": PASSWORD}
                await client.post("/api/signup", json=body)
                waiting = asyncio.create_task(client.post("/api/accounts", json={}))
                await until_waiting(client)
                await asyncio.gather(stop(running), waiting)
                assert waiting.result().status_code == 202
    finally:
        await ledger.start_workers()


async def test_a_request_that_came_while_the_process_stood_still_is_served(ledger: Ledger) -> None:
    async with api_process(ledger) as (url, running):
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            body = {"name": "Anna", "email": "frozen@example.com", "password": PASSWORD}
            await client.post("/api/signup", json=body)
            number = (await client.post("/api/accounts", json={})).json()["accountNumber"]
            for _ in range(2):
                running.send_signal(signal.SIGSTOP)
                deposit = {"accountNumber": number, "amount": "5"}
                asking = asyncio.create_task(client.post("/api/deposit", json=deposit))
                await asyncio.sleep(2)  # longer than a lease
                running.send_signal(signal.SIGCONT)
                answer = await asking
                assert answer.status_code == 200, answer.text


async def test_clients_leave_before_it_ends(ledger: Ledger) -> None:
    """After the signal to stop it serves on for a while, and asks its clients to leave."""
    async with api_process(ledger, MICROFIN_DRAIN_SECONDS="4") as (url, running):
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            assert "connection" not in (await client.get("/openapi.json")).headers
            ending = asyncio.create_task(stop(running))
            while (await client.get("/readyz")).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await client.get("/readyz")).json()["missing"] == ["this process is stopping"]
            for _ in range(20):
                served = await client.get("/api/me")
                assert (served.status_code, served.headers["connection"]) == (401, "close")
                await asyncio.sleep(0.02)
            assert running.returncode is None
            await ending


async def until_waiting(client: httpx.AsyncClient) -> None:
    """Wait until a command is under way."""

    async def is_waiting() -> bool:
        return 'waiting{partition="' in (await client.get("/metrics")).text

    await until("a command is under way", is_waiting, pause=0.02)


async def test_a_body_without_an_announced_size_is_limited_too(ledger: Ledger) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"email":"'
        for _ in range(1_000):
            yield b"x" * 1_000

    async with api_process(ledger) as (url, _):
        await until_ready(url)
        headers = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=url, timeout=30, headers=headers) as client:
            answer = await client.post("/api/signin", content=endless())
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
            assert (await client.get("/healthz")).status_code == 200


async def test_without_a_secret_it_says_so(ledger: Ledger) -> None:
    async with api_process(ledger, MICROFIN_SECRET="") as (url, running):
        assert await running.wait() == 1
        said = (ledger.folder / f"api-{url.rpartition(':')[2]}.log").read_text()
        assert "MICROFIN_SECRET is not set" in said


async def test_it_starts_without_anything_to_connect_to(ledger: Ledger) -> None:
    nowhere = {
        "MICROFIN_DATABASES": "postgresql://microfin_api:x@127.0.0.1:1/nowhere",
        "MICROFIN_KAFKA": "127.0.0.1:1",
        "MICROFIN_REDIS": "redis://127.0.0.1:1",
    }
    async with api_process(ledger, **nowhere) as (url, running):
        deadline = time.monotonic() + 30
        async with httpx.AsyncClient(base_url=url, timeout=5) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    ready = await client.get("/readyz")
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert ready.status_code == 503
            missing = " ".join(ready.json()["missing"])
            assert "lease" in missing
            assert "Kafka" in missing
            assert (await client.get("/healthz")).status_code == 200
        await stop(running)


async def test_an_offer_to_upgrade_loses_no_body(ledger: Ledger) -> None:
    """Java's HttpClient and `curl --http2` offer h2c with every first request."""
    offer = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    async with api_process(ledger) as (url, _):
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30, headers=offer) as client:
            body = {"name": "Anna", "email": "offers@example.com", "password": PASSWORD}
            assert (await client.post("/api/signup", json=body)).status_code == 200
            opened = await client.post("/api/accounts", json={"currency": "USD"})
            assert (opened.status_code, opened.json()["currency"]) == (201, "USD")
            deposit = {"accountNumber": opened.json()["accountNumber"], "amount": "5"}
            settled = await client.post("/api/deposit", json=deposit)
            assert (settled.status_code, settled.json()["balance"]) == (200, "5.00")


async def test_a_body_that_does_not_come_is_a_408(ledger: Ledger) -> None:
    async with api_process(ledger) as (url, _):
        port = int(url.rpartition(":")[2])
        await until_ready(f"http://127.0.0.1:{port}")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /api/signin HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"email":'
        )
        async with asyncio.timeout(24):  # less than what ends every request
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
