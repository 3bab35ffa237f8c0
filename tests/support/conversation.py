"""Talks to the HTTP protocol at a socket: one segment at a time, each read before the next."""

import asyncio
import json
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.server import ServerState

from microfin_api.http.protocol import StrictHttpProtocol

LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Answered(NamedTuple):
    """One answer: its status and what its body says (None where it is no JSON)."""

    status: int
    said: Any


class Echo:
    """An application that answers what it was asked. Paths with `early` do not wait for a body."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        assert scope["type"] == "http"
        self.asked.append(scope["path"])
        body = b""
        more = "early" not in scope["path"]
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        await self.may_answer.wait()
        said = json.dumps(
            {
                "method": scope["method"],
                "path": scope["path"],
                "body": body.decode("latin-1"),
                "headers": {it.decode(): value.decode() for it, value in scope["headers"]},
                "fault": scope.get("body_fault", ""),
            }
        ).encode()
        length = (b"content-length", b"%d" % len(said))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": said, "more_body": False})


class Conversation:
    """One connection to the protocol."""

    def __init__(self, app: Echo) -> None:
        config = uvicorn.Config(app, http=StrictHttpProtocol, ws="none", lifespan="off")
        config.load()
        self._config = config
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.heard = b""

    async def begin(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: StrictHttpProtocol(self._config, ServerState(), {}), self._theirs
        )

    async def say(self, segments: Iterable[bytes]) -> None:
        """Send each segment alone; the loop's next turns read it before the one after it."""
        loop = asyncio.get_running_loop()
        for segment in segments:
            if segment:
                try:
                    await loop.sock_sendall(self._ours, segment)
                except OSError:  # it has hung up
                    return
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    async def hear(self) -> list[Answered]:
        """Return all answers, once the other side has hung up."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while True:
                try:
                    data = await loop.sock_recv(self._ours, 65536)
                except ConnectionResetError:
                    break
                if not data:
                    break
                self.heard += data
        self._ours.close()
        return answers_in(self.heard)


async def converse(app: Echo, segments: Iterable[bytes]) -> list[Answered]:
    """Say it all and return the answers. The last request must ask to close."""
    conversation = Conversation(app)
    await conversation.begin()
    await conversation.say(segments)
    return await conversation.hear()


def answers_in(heard: bytes) -> list[Answered]:
    """Return the answers of a connection; interim ones (100) are not among them."""
    answers = []
    while heard:
        head, _, heard = heard.partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        if status == b"HTTP/1.1 100 Continue":
            continue
        fields = dict(header.lower().split(b": ", 1) for header in headers)
        length = int(fields[b"content-length"])
        body, heard = heard[:length], heard[length:]
        said = json.loads(body) if body.startswith(b"{") else None
        answers.append(Answered(int(status.split()[1]), said))
    return answers
