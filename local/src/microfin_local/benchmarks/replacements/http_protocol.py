"""The API's HTTP protocol beside uvicorn's own with httptools: requests of a deposit's form.

The server runs in the event loop's thread and a client in another one. Only the CPU of the server's
thread counts, system calls included. Two ways are compared with ours: uvicorn with httptools, which
reads a body as requests after an offer to upgrade (ADR 27), and uvicorn with h11, which does not.
"""

import asyncio
import socket
import time
from typing import Any, Final

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from microfin_api.http.protocol import StrictHttpProtocol
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare

_REQUESTS: Final = 5_000
_BODY: Final = b'{"accountNumber":"4711000000000000000000","amount":"12.50"}'
_REQUEST: Final = (
    b"POST /api/deposit HTTP/1.1\r\nHost: bank.example.com\r\n"
    b"Content-Type: application/json\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n"
    b"Idempotency-Key: 0123456789abcdef0123456789abcdef\r\nX-Forwarded-For: 127.0.0.1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_ANSWER: Final = b'{"status":"settled","balance":"112.50"}'
_HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_ANSWER)),
    (b"x-content-type-options", b"nosniff"),
]


async def measure_http_protocol(runs: int, requests: int = _REQUESTS) -> dict[str, Any]:
    """Return the microseconds of the server's CPU for one request."""
    ours = _serving(StrictHttpProtocol, requests)
    return {
        "request_beside_httptools": await compare(
            ours, _serving(HttpToolsProtocol, requests), runs=runs
        ),
        "request_beside_h11": await compare(ours, _serving(H11Protocol, requests), runs=runs),
    }


async def _answer(_scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


def _serving(kind: type[asyncio.Protocol], requests: int) -> Measure:
    async def measure() -> float:
        config = uvicorn.Config(
            _answer, http=kind, lifespan="off", log_config=None, access_log=False
        )
        config.load()
        server = uvicorn.Server(config)
        ours, theirs = await asyncio.to_thread(_connected)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(
            lambda: kind(config, server.server_state, {}),  # type: ignore[call-arg]
            ours,
        )
        began = time.thread_time()
        await asyncio.to_thread(_ask, theirs, requests)
        spent = time.thread_time() - began
        transport.close()
        return 1_000_000 * spent / requests

    return measure


def _connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection on this machine, the server's first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as uvloop does
    ours.setblocking(False)
    return ours, theirs


def _ask(client: socket.socket, requests: int) -> None:
    """Send one request after the other, each once the last is answered."""
    client.settimeout(10)
    with client:
        for _ in range(requests):
            client.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(_ANSWER):
                received = client.recv(65536)
                if not received:
                    raise ConnectionResetError(f"the server hung up after {answer!r}")
                answer += received
