"""A proxy between the components, which breaks connections on demand.

`python -m faults.proxy FILE` listens as FILE says (see `microfin_local.detours`) and accepts orders
on its control port, one JSON object a line, answered by a line:

    {"ways": ["api-kafka-1"], "fault": "delay", "seconds": 0.2}

`drop`     breaks all connections off (RST) and every new one, until `none`
`delay`    passes everything on after `seconds`, in order, until `none`
`hold`     passes nothing on until `none`, and then everything; no TCP connection breaks
`vanish`   swallows all bytes of the connections there are and of those that come until `none`.
           These never recover and are not closed: half-open, as after a lost NAT entry
`none`     ends what was ordered for these ways

One event loop does all; no measurement uses it but those of the fault suite.
"""

import asyncio
import contextlib
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any, cast

FAULTS = ("none", "drop", "delay", "hold", "vanish")
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_REST_OF_A_HALF = 10.0  # seconds until the other end of a half-open connection is closed, too


class Way:
    """One way through the proxy, and the fault that is on it now."""

    def __init__(self, name: str, port: int, target: int) -> None:
        self.name = name
        self.port = port
        self.target = target
        self.fault = "none"
        self.seconds = 0.0
        self.links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._waiting: asyncio.Task[None] | None = None

    def put(self, fault: str, seconds: float) -> None:
        """Put a fault on this way, or remove it."""
        self.fault, self.seconds = fault, seconds
        for link in list(self.links):
            link.follow()

    async def listen(self) -> None:
        """Listen for connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Near(self), "127.0.0.1", self.port, backlog=512
        )

    def refuse(self) -> None:
        """Refuse connections, as the component behind does, until it listens again."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._waiting = asyncio.create_task(self._listen_again())

    async def _listen_again(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.target)
                writer.close()
                await self.listen()
                return


class Link:
    """One connection through the proxy: two ends and what lies between them."""

    def __init__(self, way: Way, near: "End") -> None:
        self.way = way
        self.ends: list[End] = [near]
        self.lost = False
        way.links.add(self)

    def follow(self) -> None:
        """Do what the way's fault asks of a connection that is there."""
        if self.way.fault == "drop":
            self.abort()
        elif self.way.fault == "vanish":
            self.lost = True
        else:
            for end in self.ends:
                end.drain()

    def other(self, end: "End") -> "End | None":
        """Return the other end, None while it is not connected."""
        return next((it for it in self.ends if it is not end), None)

    def abort(self) -> None:
        """Break both ends off."""
        self.way.links.discard(self)
        for end in self.ends:
            end.abort()


class End(asyncio.Protocol):
    """One end. Bytes that came in here wait in `pending` until they may go out at the other."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.transport: asyncio.Transport | None = None
        self.pending: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._take(data)

    def eof_received(self) -> bool:
        """Pass the end of the bytes on, and leave the other direction open, unless all is lost."""
        self._take(None)
        return self.link is None or not self.link.lost

    def connection_lost(self, _error: Exception | None) -> None:
        """Close the other end: at once, or where the connection is half-open, much later."""
        if self._timer is not None:
            self._timer.cancel()
        if self.link is None:
            return
        if self.link.lost:
            asyncio.get_running_loop().call_later(_REST_OF_A_HALF, self.link.abort)
            return
        other = self.link.other(self)
        if other is not None and other.transport is not None and not self.pending:
            other.transport.close()
        self.link.way.links.discard(self.link)

    def pause_writing(self) -> None:
        """Let the other end stop reading while this one accepts no more."""
        self._reading(False)

    def resume_writing(self) -> None:
        """Let the other end read on."""
        self._reading(True)

    def _reading(self, on: bool) -> None:
        other = self.link.other(self) if self.link is not None else None
        if other is not None and other.transport is not None and not other.transport.is_closing():
            with contextlib.suppress(RuntimeError):
                (other.transport.resume_reading if on else other.transport.pause_reading)()

    def _take(self, data: bytes | None) -> None:
        link = self.link
        if link is None or link.lost:
            return
        delay = link.way.seconds if link.way.fault == "delay" else 0.0
        self.pending.append((asyncio.get_running_loop().time() + delay, data))
        self.drain()

    def drain(self) -> None:
        """Write to the other end what is due, in order."""
        link = self.link
        if link is None or link.lost or link.way.fault == "hold":
            return
        other = link.other(self)
        if other is None or other.transport is None:
            return
        now = asyncio.get_running_loop().time()
        while self.pending and (self.pending[0][0] <= now or link.way.fault == "none"):
            data = self.pending.popleft()[1]
            if other.transport.is_closing():
                continue  # nobody reads it any more
            if data is not None:
                other.transport.write(data)
            elif other.transport.can_write_eof():
                other.transport.write_eof()
        if self.pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self.pending[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.drain()

    def abort(self) -> None:
        """Break this end off."""
        self.pending.clear()
        if self.transport is not None:
            self.transport.abort()


class Near(End):
    """The end of the client that connected to us. Connects to the component behind."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self._way = way
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the component, unless the way's fault forbids it."""
        super().connection_made(transport)
        self.link = Link(self._way, self)
        if self._way.fault == "drop":
            self.link.abort()
            return
        self.link.lost = self._way.fault == "vanish"
        self._connecting = asyncio.create_task(self._connect(self.link))

    async def _connect(self, link: Link) -> None:
        far = End()
        far.link = link
        link.ends.append(far)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: far, "127.0.0.1", link.way.target)
        except (OSError, TimeoutError) as error:
            link.abort()
            if isinstance(error, ConnectionRefusedError):
                link.way.refuse()
        else:
            self.drain()


class Control:
    """Accepts orders."""

    def __init__(self, ways: list[Way]) -> None:
        self._ways = {way.name: way for way in ways}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry out the orders of one connection."""
        while line := await reader.readline():
            try:
                answer = self._obey(json.loads(line))
            except Exception as error:  # noqa: BLE001 - who ordered it must learn what is wrong
                answer = repr(error).replace("\n", " ")
            writer.write(f"{answer}\n".encode())
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()

    def _obey(self, order: dict[str, Any]) -> str:
        if order["fault"] not in FAULTS:
            return f"there is no fault {order['fault']!r}; there are: {', '.join(FAULTS)}"
        unknown = [name for name in order["ways"] if name not in self._ways]
        if unknown:
            return f"there is no way {unknown[0]!r}; there are: {', '.join(self._ways)}"
        for name in order["ways"]:
            self._ways[name].put(order["fault"], order.get("seconds", 0.0))
        return "ok"


class ProxyControl:
    """The other side of `Control`, for the side that gives the orders."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def put(self, ways: list[str], fault: str, seconds: float = 0.0) -> None:
        """Put a fault on ways. Raises ValueError with what the proxy says where it cannot be."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        order = {"ways": ways, "fault": fault, "seconds": seconds}
        writer.write((json.dumps(order) + "\n").encode())
        answer = (await reader.readline()).decode().strip()
        writer.close()
        if answer != "ok":
            raise ValueError(answer)


async def serve(path: Path) -> None:
    """Serve all ways of the file, for ever."""
    layout = json.loads(path.read_text())  # noqa: ASYNC240 - once, before anything is served
    ways = [Way(it["name"], it["port"], it["target"]) for it in layout["ways"]]
    for way in ways:
        await way.listen()
    control = await asyncio.start_server(Control(ways).serve, "127.0.0.1", layout["control"])
    await control.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    import uvloop

    uvloop.run(serve(Path(sys.argv[1])))
