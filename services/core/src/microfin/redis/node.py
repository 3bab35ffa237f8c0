"""Connections to one Redis node: commands go out together, replies come back in the same order.

redis-py uses a connection for each command that waits, and looks up each command anew; at some
hundred commands a second that is most of what Redis costs us. Here all callers of a node share one
connection, all commands of one turn of the event loop are one write, and one timer watches all
deadlines. ADR 30 says what it gains and when to delete it.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import hiredis
import msgspec

from microfin.process.ticks import until_tick

Command = tuple[str | bytes | int, ...]

# hiredis' annotation allows for one word only.
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)

ErrorReply = hiredis.ReplyError
"""The reply to a command that the node refused."""

_NOTHING: Final = False  # hiredis returns this while a reply is incomplete

Login = Callable[[], tuple[str | None, str | None]]
"""Returns the current user and password."""


class Address(msgspec.Struct, frozen=True):
    """Where a node is, and how to sign in to it; `tls` is None for a connection without TLS."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: ssl.SSLContext | None


class _Asked:
    """Commands that were sent together, and the replies so far."""

    __slots__ = ("answered", "deadline", "left", "replies")

    def __init__(self, count: int, deadline: float, answered: asyncio.Future[list[Any]]) -> None:
        self.left = count
        self.deadline = deadline
        self.answered = answered
        self.replies: list[Any] = []


class _Connection(asyncio.Protocol):
    """A connection for commands and replies. Ends when a reply does not come in time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._asked: deque[_Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._fault: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether no command can be sent on it any more."""
        return self._transport is None

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send `commands` and return a future of their replies, `ErrorReply` among them.

        The future ends with an OSError (such as TimeoutError) if the connection ends first.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection to Redis has ended")
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.extend(map(_pack, commands))
        deadline = self._loop.time() + self._timeout
        asked = _Asked(len(commands), deadline, self._loop.create_future())
        self._asked.append(asked)
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)
        return asked.answered

    def end(self, fault: Exception | None = None) -> None:
        """End the connection; waiting commands end with `fault`."""
        self._fault = self._fault or fault
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the connection is open; asyncio calls this."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the replies that have arrived."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._assign(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.end(ConnectionError(f"Redis was not understood: {error!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        """End all waiting commands with a fault; asyncio calls this."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        fault = self._fault or error or ConnectionResetError("Redis closed the connection")
        while self._asked:
            answered = self._asked.popleft().answered
            if not answered.done():
                answered.set_exception(fault)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _assign(self, reply: Any) -> None:
        """Give a reply to the oldest commands that still wait for one."""
        asked = self._asked[0]
        asked.replies.append(reply)
        asked.left -= 1
        if asked.left == 0:
            self._asked.popleft()
            if not asked.answered.done():
                asked.answered.set_result(asked.replies)

    def _look_at_the_clock(self) -> None:
        """End the connection if the oldest reply is overdue; else check at its deadline."""
        self._timer = None
        if not self._asked:
            return
        deadline = self._asked[0].deadline
        if deadline <= self._loop.time():
            self.end(TimeoutError(f"Redis did not answer within {self._timeout} s"))
        else:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)


class Subscription(_Connection):
    """A connection that listens to one sharded channel. Ends after too long a silence."""

    def __init__(self, timeout: float, silence: float) -> None:
        super().__init__(timeout)
        self._silence = silence
        self._heard = self._loop.time()
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watch: asyncio.TimerHandle | None = None

    async def next(self) -> bytes | None:
        """Return the next message, None when no more will come."""
        return await self._messages.get()

    def hear(self, channel: str) -> None:
        """Subscribe to `channel`; after this no other command can be sent."""
        self._unsent.append(_pack(("SSUBSCRIBE", channel)))
        self._send()
        self._listen_for_silence()

    def connection_lost(self, error: Exception | None) -> None:
        """End the messages; asyncio calls this."""
        super().connection_lost(error)
        if self._watch is not None:
            self._watch.cancel()
        self._messages.put_nowait(None)

    def _assign(self, reply: Any) -> None:
        if self._asked:  # the connection begins with the password
            super()._assign(reply)
            return
        self._heard = self._loop.time()
        match reply:
            case [b"smessage", _, payload]:
                self._messages.put_nowait(payload)
            case [b"ssubscribe", *_]:
                pass
            case _:  # an error, or the channel has moved to another node
                self.end()

    def _listen_for_silence(self) -> None:
        if self._loop.time() - self._heard > self._silence:
            self.end()
        else:
            pause = until_tick(self._loop.time(), self._silence / 4)
            self._watch = self._loop.call_later(pause, self._listen_for_silence)


_AnyConnection = TypeVar("_AnyConnection", bound=_Connection)


class Node:
    """One node. Connects at the first command, and again after the connection has ended.

    `login`, if given, returns user and password for each new connection, in place of those in the
    address.
    """

    def __init__(self, address: Address, timeout: float, login: Login | None = None) -> None:
        self.name = f"{address.host}:{address.port}"
        self.paused_until = 0.0
        self._address = address
        self._login = login or (lambda: (address.user, address.password))
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to `commands`. Raises OSError where the node does not answer."""
        connection = self._connection
        if connection is None or connection.ended:
            connection = await self._connect()
        return await connection.ask(commands)

    async def subscribe(self, channel: str, silence: float) -> Subscription:
        """Return a new connection that listens to `channel`, and ends after `silence` seconds."""
        subscription = await self._open(lambda: Subscription(self._timeout, silence))
        subscription.hear(channel)
        return subscription

    def close(self) -> None:
        """End the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end()

    async def _connect(self) -> _Connection:
        """Connect once for all callers that wait for the connection."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open(lambda: _Connection(self._timeout)))
        connecting = self._connecting
        try:
            self._connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if connecting.cancelled() and task is not None and not task.cancelling():
                raise ConnectionAbortedError("the node has left the cluster") from None
            raise
        return self._connection

    async def _open(self, protocol: Callable[[], _AnyConnection]) -> _AnyConnection:
        address = self._address
        async with asyncio.timeout(self._timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                protocol,
                address.host,
                address.port,
                ssl=address.tls,
            )
        user, password = self._login()
        if password is not None:
            [reply] = await connection.ask([("AUTH", user or "default", password)])
            if isinstance(reply, ErrorReply):
                connection.end()
                raise ConnectionRefusedError(f"Redis does not let us in: {reply}")
        return connection
