"""nginx as ingress-nginx configures it, passing offers to upgrade on, before an API process."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from microfin_local.programs import find_program
from microfin_local.supervised import Program, SupervisedProcess
from microfin_local.wait import accepts_connections, wait_until
from support.api_under_test import PASSWORD, Ledger, api_process
from support.ports import free_port
from support.waiting import until_ready

ANSWERS = 1000
CUSTOMERS = 6
ATTACKERS = 6

# What controller v1.15.1 writes for an Ingress without annotations, as far as it matters here.
SETTINGS = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 64k;
    client_body_buffer_size 8k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    upstream upstream_balancer {{
        server 127.0.0.1:{api_port};
        keepalive 320;
        keepalive_time 1h;
        keepalive_timeout 60s;
        keepalive_requests 10000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_connect_timeout 2s;
            proxy_send_timeout 10s;
            proxy_read_timeout 30s;
            proxy_buffering off;
            proxy_buffer_size 4k;
            proxy_buffers 4 4k;
            proxy_max_temp_file_size 1024m;
            proxy_request_buffering on;
            proxy_http_version 1.1;
            proxy_next_upstream off;
            proxy_pass http://upstream_balancer;
        }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def ingress(folder: Path, api_port: int) -> AsyncIterator[str]:
    """Run nginx before the API process; give its address."""
    port = free_port()
    settings = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    settings.write_text(SETTINGS.format(user=user, folder=folder, port=port, api_port=api_port))
    program = Program(
        name="nginx",
        arguments=(find_program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(settings)),
        directory=folder,
    )
    nginx = SupervisedProcess(program, folder / "nginx.log", print, lambda: None)
    await nginx.start()
    try:
        await wait_until(lambda: accepts_connections(port), [nginx], "nginx")
        yield f"http://127.0.0.1:{port}"
    finally:
        await nginx.stop()


async def sign_up(url: str) -> tuple[str, str]:
    """Return a new user's id and session."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        body = {"name": "Anna", "email": f"{os.urandom(8).hex()}@example.com", "password": PASSWORD}
        answer = await client.post("/api/signup", json=body)
        assert answer.status_code == 200, answer.text
        signed_up = answer.json()
        return signed_up["userId"], signed_up["sessionId"]


async def attack(url: str, session_id: str) -> None:
    """Send bodies that are requests, after an offer to upgrade, without signing in; for ever."""
    hidden = f"GET /api/me HTTP/1.1\r\nHost: x\r\nCookie: sessionId={session_id}\r\n\r\n".encode()
    headers = {
        "Content-Type": "application/json",
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for size in (size for _ in iter(int, 1) for size in (20_000, 40_000, 60_000)):
            body = hidden * (size // len(hidden))
            with contextlib.suppress(httpx.TransportError):
                await client.post("/api/deposit", content=body, headers=headers)


async def ask(url: str, user: str, session_id: str, share: int) -> Counter[str]:
    """Ask who one is; count the answers: own, somebody else's, others."""
    counts: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for _ in range(share):
            answer = await client.get("/api/me", headers={"Cookie": f"sessionId={session_id}"})
            if answer.status_code != 200:
                counts[f"status {answer.status_code}"] += 1
            elif answer.json()["userId"] != user or "set-cookie" in answer.headers:
                counts["somebody else's"] += 1
            else:
                counts["own"] += 1
    return counts


async def test_nobody_gets_an_answer_to_what_somebody_else_hid_in_a_body(
    ledger: Ledger, tmp_path: Path
) -> None:
    async with api_process(ledger) as (api_url, _):
        api_port = int(api_url.rpartition(":")[2])
        await until_ready(f"http://127.0.0.1:{api_port}")
        async with ingress(tmp_path, api_port) as url:
            _, attackers_session = await sign_up(url)
            customers = [await sign_up(url) for _ in range(CUSTOMERS)]
            attackers = [
                asyncio.create_task(attack(url, attackers_session)) for _ in range(ATTACKERS)
            ]
            try:
                share = -(-ANSWERS // CUSTOMERS)
                counts = await asyncio.gather(*(ask(url, *it, share) for it in customers))
            finally:
                for attacker in attackers:
                    attacker.cancel()
                await asyncio.gather(*attackers, return_exceptions=True)
    assert sum(counts, Counter[str]()) == Counter({"own": share * CUSTOMERS})
