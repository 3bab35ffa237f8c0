"""Signing in while the processes that compute hashes fail, and while the API process ends."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from microfin_api.people import hashing_processes
from support.api_under_test import PASSWORD, Ledger, User, api_process, running
from support.waiting import until, until_ready, until_true


async def test_who_is_signed_in_notices_nothing_if_no_hash_can_be_computed(
    ledger: Ledger, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(hashing_processes, "_PYTHON", "/no/such/file")
        async with running(ledger.settings()) as api, api.client() as client:
            body = {"email": user.email, "password": PASSWORD}
            refused = await client.post("/api/signin", json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert refused.headers["retry-after"]
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            assert "nobody can sign in" in str(ready.json()["degraded"])
            client.headers["Authorization"] = f"Bearer {user.session_id}"
            assert (await client.get("/api/me")).status_code == 200
            broken.undo()
            await until_true(lambda: not api.services.passwords.fault())
            assert (await client.post("/api/signin", json=body)).status_code == 200


async def test_a_hash_under_way_is_finished_when_the_process_is_to_end(
    ledger: Ledger, user: User
) -> None:
    """SIGTERM goes to the whole family, as from systemd, while somebody signs in."""
    async with (
        api_process(ledger, MICROFIN_ARGON2_CONCURRENCY="1") as (url, process),
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        httpx.AsyncClient(base_url=url, timeout=30) as other,
    ):
        await until_ready(url)
        body = {"email": user.email, "password": PASSWORD}
        assert (await client.post("/api/signin", json=body)).status_code == 200
        (hashing,) = _children(process.pid)
        os.kill(hashing, signal.SIGSTOP)
        asked = asyncio.create_task(client.post("/api/signin", json=body))

        async def under_way() -> bool:
            return "microfin_api_password_hashes 1.0" in (await other.get("/metrics")).text

        await until("the hash is under way", under_way)
        idle, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        for member in (hashing, process.pid):
            os.kill(member, signal.SIGTERM)
        assert await idle.read() == b""  # uvicorn begins to stop by closing idle connections
        writer.close()
        os.kill(hashing, signal.SIGCONT)
        assert (await asked).status_code == 200
        assert await process.wait() == 0
        assert not Path(f"/proc/{hashing}").exists()  # noqa: ASYNC240 - it is in memory


def _children(process: int) -> list[int]:
    return [
        int(child)
        for thread in Path(f"/proc/{process}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
